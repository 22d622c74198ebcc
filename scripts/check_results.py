"""Compare a regenerated comparison with the committed one: every delta_m within twice its standard error over seeds.

With a configuration instead, before training, it says whether they can agree. The standard error itself must be below
one point, or agreement would say nothing.

python scripts/check_results.py NEW/comparison.json results/scenes/comparison.json
python scripts/check_results.py configs/scenes_comparison.yaml results/scenes/comparison.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from branchtune.comparison.methods import TITLES
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Row, rows
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.settings import Settings
from branchtune.tables.cells import Cells

LARGEST_ERROR = 1.0  # points of delta_m


def check(new: Comparison, committed: Comparison, largest_error: float) -> list[list[str]]:
    """One line for each committed method: both means, twice the standard error, and whether they agree."""
    if len(committed.seeds) < 2:
        raise UserError("the committed comparison has one seed: there is no standard error to compare with")
    check_configuration(Settings.parse(new.config), committed)
    if new.seeds != committed.seeds:
        raise UserError(f"seeds {new.seeds} here, {committed.seeds} there: they cannot be compared")
    found = {row.method: row for row in rows(new)}
    return [_line(row, found.get(row.method), largest_error) for row in rows(committed)]


def check_configuration(settings: Settings, committed: Comparison) -> None:
    """Refuse another configuration than the committed one; a key that was not there yet had its default."""
    old, new = Settings.parse(committed.config).flat(), settings.but(output="runs", reference=None).flat()
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        raise UserError(f"the committed comparison has another configuration: {', '.join(differing)}; make it again")


def _line(row: Row, again: Row | None, largest_error: float) -> list[str]:
    allowed = 2 * row.delta_m.error
    title, old = TITLES[row.method], f"{row.delta_m.mean:+.2f}"
    if again is None:
        return [title, old, "-", f"{allowed:.2f}", "missing"]
    if row.delta_m.error >= largest_error:
        return [title, old, f"{again.delta_m.mean:+.2f}", f"{allowed:.2f}", "TOO NOISY"]
    # The single-task models are the zero of their own delta_m, up to rounding.
    agree = abs(again.delta_m.mean - row.delta_m.mean) <= max(allowed, 1e-9)
    return [title, old, f"{again.delta_m.mean:+.2f}", f"{allowed:.2f}", "agrees" if agree else "DIFFERS"]


def main(new: str, committed: str, largest_error: float = LARGEST_ERROR) -> int:
    try:
        if Path(new).suffix == ".yaml":
            check_configuration(Settings.load(new), Comparison.load(Path(committed)))
            return 0
        lines = check(Comparison.load(Path(new)), Comparison.load(Path(committed)), largest_error)
    except UserError as error:
        print(f"check_results: {error}", file=sys.stderr)
        return 2
    heading = ["method", "committed", "now", "allowed", ""]
    Reporter(quiet=True).table(Cells("Δm %, mean over seeds", heading, lines))
    return 0 if all(line[-1] == "agrees" for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
