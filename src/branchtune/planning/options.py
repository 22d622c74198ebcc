"""What the planner chooses from: per level a loss for every number of groups, and what a group costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: losses are integers in this unit, so that a tie is a tie whatever the order of summation
LOSS_UNIT = 2.0**-40


class Choice(NamedTuple):
    """Group counts with their loss and cost; the smaller one is the better: by loss, then MACs, then parameters."""

    loss: int
    macs: int
    parameters: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LevelOptions:
    """One level: k groups lose `loss[k - 1]` (never rising with k), and each costs this much."""

    loss: tuple[int, ...]
    macs: int
    parameters: int


@dataclass(frozen=True)
class Limits:
    """What all groups together may cost; None for no limit."""

    macs: int | None = None
    parameters: int | None = None

    def allow(self, choice: Choice) -> bool:
        return (self.macs is None or choice.macs <= self.macs) and (
            self.parameters is None or choice.parameters <= self.parameters
        )

    def less(self, spent: Choice) -> Limits:
        """What remains of the limits."""
        return Limits(
            None if self.macs is None else self.macs - spent.macs,
            None if self.parameters is None else self.parameters - spent.parameters,
        )


def extend(choice: Choice, level: LevelOptions, count: int) -> Choice:
    """`choice` with `count` groups at the next level."""
    return Choice(
        choice.loss + level.loss[count - 1],
        choice.macs + count * level.macs,
        choice.parameters + count * level.parameters,
        (*choice.counts, count),
    )


def choice_of(levels: Sequence[LevelOptions], counts: Sequence[int]) -> Choice:
    """The loss and cost of given counts."""
    choice = Choice(0, 0, 0, ())
    for level, count in zip(levels, counts, strict=True):
        choice = extend(choice, level, count)
    return choice
