"""Write docs/results.md from the committed comparisons, results/*/comparison.json.

python scripts/results_page.py
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from branchtune.atomic import write_text
from branchtune.comparison.outcome import outcome
from branchtune.comparison.result import Comparison

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"


def page() -> str:
    """The page: what docs/results_head.md says, then the tables of every comparison."""
    parts = [(ROOT / "docs" / "results_head.md").read_text(encoding="utf-8").rstrip()]
    for path in sorted((ROOT / "results").glob("*/comparison.json")):
        comparison = Comparison.load(path)
        text = path.with_name("README.md")
        parts.append(f"## {comparison.name}")
        if text.exists():
            parts.append(_moved(text.read_text(encoding="utf-8").strip(), path.parent))
        parts.append(outcome(comparison).markdown().strip())
        if path.with_name("pareto.svg").exists():
            parts.append(f"![Δm against cost](../{path.parent.relative_to(ROOT).as_posix()}/pareto.svg)")
    return "\n\n".join(parts) + "\n"


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
