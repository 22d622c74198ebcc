"""What `check-data` prints: counts, ranges, class balance, problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table

from branchtune.data.check import LabelSummary, SplitSummary
from branchtune.data.problems import first_few


def data_table(
    summaries: Sequence[SplitSummary],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    every_class: bool = False,
) -> Table:
    """One row per split and label.

    Args:
        summaries: of the splits.
        names: of the classes, by label, where there are names.
        every_class: list all classes with their shares, not the largest and the smallest.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("split", "label", "samples", "ignored", "holds"):
        table.add_column(title, justify="right" if title in ("samples", "ignored") else "left")
    for summary in summaries:
        table.add_row(summary.split, "image", str(summary.usable), "", _sizes(summary.sizes))
        for name, label in summary.labels.items():
            ignored = f"{label.ignored / label.pixels:.1%}" if label.pixels else "-"
            holds = _holds(label, (names or {}).get(name, ()), every_class)
            table.add_row("", name, str(label.samples), ignored, holds)
        table.add_section()
    return table


def problem_lines(summaries: Sequence[SplitSummary], count: int | None = 20) -> list[str]:
    """Every problem in a line, at most `count` of each kind and split, and how many more there are."""
    lines = []
    for summary in summaries:
        kinds = Counter(problem.kind for problem in summary.problems)
        for kind, number in kinds.items():
            texts = [problem.text for problem in summary.problems if problem.kind == kind]
            lines += [f"{summary.split}: {kind}: {text}" for text in texts[:count]]
            if count is not None and number > count:
                lines.append(f"{summary.split}: {kind}: and {number - count} more (--all lists them)")
    return lines


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    if (low == high).all():
        return f"{low[0]}x{low[1]} pixels"
    return f"{low[0]}x{low[1]} to {high[0]}x{high[1]} pixels"


def _holds(label: LabelSummary, names: Sequence[str], every_class: bool) -> str:
    if label.pixels == label.ignored:
        return "no labelled pixel"
    empty = f"; {label.empty} samples ignored as a whole" if label.empty else ""
    if label.kind == "classes":
        return _classes(label.shares, names, every_class) + empty
    if label.kind == "normals":
        return "unit normals" + empty
    unit = " m" if label.kind == "depth" else ""
    return f"{label.low:.4g} to {label.high:.4g}{unit}, mean {label.mean:.4g}{unit}{empty}"


def _classes(shares: np.ndarray, names: Sequence[str], every_class: bool) -> str:
    found = np.flatnonzero(shares)
    order = found[np.argsort(-shares[found], kind="stable")]

    def named(index: int) -> str:
        return f"{names[index] if index < len(names) else index} ({shares[index]:.1%})"

    most = len(order) if every_class else 3
    start = ": " if every_class else "; most "
    text = f"{len(found)} of {len(shares)} classes{start}{', '.join(named(i) for i in order[:most])}"
    if len(order) > most:
        text += f"; least {named(order[-1])}"
    absent = [str(names[i] if i < len(names) else i) for i in range(len(shares)) if shares[i] == 0]
    return text + (f"; absent {first_few(absent, len(absent) if every_class else 8)}" if absent else "")
