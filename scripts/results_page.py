"""Write docs/results.md from the committed comparisons, results/*/comparison.json.

python scripts/results_page.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from branchtune.atomic import write_text
from branchtune.comparison.methods import TITLES
from branchtune.comparison.outcome import outcome
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import advantage
from branchtune.comparison.tables import DIFFERENCE, difference
from branchtune.tables.cells import Cells

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
CLAIMS = ("shared", "separate", "full", "random", "comb")  # all but the comb are to be beaten; it shows what forks add


def page() -> str:
    """The page: what docs/results_head.md says, the claims, then the tables of every comparison."""
    found = {path: Comparison.load(path) for path in sorted((ROOT / "results").glob("*/comparison.json"))}
    head = (ROOT / "docs" / "results_head.md").read_text(encoding="utf-8").rstrip()
    parts = [head, claims(list(found.values())).markdown()]
    for path, comparison in found.items():
        text = path.with_name("README.md")
        parts.append(f"## {comparison.name}")
        if text.exists():
            parts.append(_moved(text.read_text(encoding="utf-8").strip(), path.parent))
        parts.append(outcome(comparison).markdown().strip())
        if path.with_name("pareto.svg").exists():
            parts.append(f"![Δm against cost](../{path.parent.relative_to(ROOT).as_posix()}/pareto.svg)")
    return "\n\n".join(parts) + "\n"


def claims(comparisons: Sequence[Comparison]) -> Cells:
    """Of each claim and comparison: the difference of delta_m in points."""
    body = [
        [
            TITLES[other],
            found.name,
            " / ".join(dict.fromkeys("-".join(map(str, r.groups)) for r in found.runs["branched"])),
            str(len(found.seeds)),
            *difference(advantage(found, "branched", other)),
        ]
        for other in CLAIMS
        for found in comparisons
    ]
    return Cells("", ["planned tree minus", "on", "groups", "seeds", *DIFFERENCE], body, labels=2)


def _moved(text: str, folder: Path) -> str:
    """Markdown of `folder` with its relative links as they are seen from the page."""
    return re.sub(
        r"\]\((?!https?:|#)([^)\s]+)\)",
        lambda found: f"]({Path(os.path.relpath(folder / found[1], PAGE.parent)).as_posix()})",
        text,
    )


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"wrote {PAGE.relative_to(ROOT)}")
