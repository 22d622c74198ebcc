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
from branchtune.comparison.summary import Spread, advantage, rows
from branchtune.comparison.tables import DIFFERENCE, difference
from branchtune.tables.cells import Cells

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
CLAIMS = ("shared", "separate", "full", "random")  # to be beaten


def page() -> str:
    """The page: what docs/results_head.md says, the claims, then the tables of every comparison."""
    found = {path: Comparison.load(path) for path in sorted((ROOT / "results").glob("*/comparison.json"))}
    head = (ROOT / "docs" / "results_head.md").read_text(encoding="utf-8").rstrip()
    parts = [head, claims(list(found.values())).markdown(), *map(size, found.values())]
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
    """Of each claim and comparison: the difference of delta_m in points, and whether it holds."""
    body = []
    for other in (*CLAIMS, "comb"):  # which has the streams of the tree and no fork
        for found in comparisons:
            groups = dict.fromkeys("-".join(map(str, r.groups)) for r in found.runs["branched"])
            spread = advantage(found, "branched", other)
            holds = held(spread) if other in CLAIMS else "no claim"
            body.append(
                [TITLES[other], found.name, " / ".join(groups), str(len(found.seeds)), *difference(spread), holds]
            )
    return Cells("", ["planned tree minus", "on", "groups", "seeds", *DIFFERENCE, "claim"], body, labels=2)


def held(spread: Spread) -> str:
    """Whether the claim holds that the planned tree is ahead."""
    if spread.mean <= 0:
        return "does not hold"
    return "holds" if spread.mean > spread.margin else "in the mean only"


def size(comparison: Comparison) -> str:
    """What the planned tree trains inside the backbone, in a sentence."""
    by_method = {row.method: row for row in rows(comparison)}
    tree, backbone = by_method["branched"].inside, by_method["full"].inside
    share = f"{tree / backbone:.1%} of its {backbone:,}"
    return f"On {comparison.name} the planned tree trains {tree:,} parameters inside the backbone, {share}."


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
