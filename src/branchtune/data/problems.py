"""What can be wrong with stored data, one record each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

ProblemKind = Literal["bad list", "listed twice", "in two splits", "missing file", "several files", "bad content"]


class Problem(NamedTuple):
    """One thing wrong with one sample.

    Attributes:
        split: the split that lists the sample.
        id: of the sample.
        kind: in a few words, for counting.
        text: names the file or the list, what is wrong with it, and the way out.
    """

    split: str
    id: str
    kind: ProblemKind
    text: str


def first_few(names: Sequence[str], count: int = 5) -> str:
    """`a, b, c, ...`"""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def describe_skipped(problems: Sequence[Problem], count: int = 3) -> str:
    """One line: how many images are left out, for which reasons, and the first few problems."""
    kinds = Counter(problem.kind for problem in problems)
    reasons = ", ".join(f"{kind} {number}" for kind, number in kinds.items())
    named = "; ".join(problem.text for problem in problems[:count])
    return f"skipped {_counted(problems)} ({reasons}): {named}" + ("; ..." if len(problems) > count else "")


def left_out(problems: Sequence[Problem]) -> set[str]:
    """The ids of samples that are gone; one that is listed twice is there once."""
    return {problem.id for problem in problems if problem.kind != "listed twice"}


def _counted(problems: Sequence[Problem]) -> str:
    """`1 image`, `2 repeated ids`, or both."""
    gone = left_out(problems)
    repeated = {problem.id for problem in problems} - gone
    counts = ((len(gone), "image"), (len(repeated), "repeated id"))
    return " and ".join(f"{number} {name}{'s' * (number > 1)}" for number, name in counts if number)
