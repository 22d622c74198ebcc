"""How many groups every level gets: the exact optimum under budgets on MACs and parameters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: losses are compared as integers in this unit, so that a tie is a tie whatever the order of summation
LOSS_UNIT = 2.0**-40


class Choice(NamedTuple):
    """Group counts with their loss and cost; the smaller choice is the better one: loss, MACs, parameters."""

    loss: int
    macs: int
    parameters: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LevelOptions:
    """One level: the loss of k groups is `loss[k - 1]`, and every group costs this much."""

    loss: tuple[int, ...]
    macs: int
    parameters: int


def choose_counts(levels: Sequence[LevelOptions], max_macs: int | None, max_parameters: int | None) -> Choice | None:
    """The non-decreasing group counts of least total loss within the budgets.

    Exact: a dynamic programme over levels whose states are the group count, the MACs and the parameters used so far.
    Dropped are states that another one beats in everything, that cannot be completed within the budgets, and that
    cannot become better than a choice already known (by Lagrangian bounds).

    Args:
        levels: in order, each with a loss for 1 to T groups.
        max_macs, max_parameters: what all groups together may cost; None for no limit.

    Returns:
        None when one group at every level is already too much.
    """
    limits = (max_macs, max_parameters)
    cheapest = choice_of(levels, (1,) * len(levels))
    if not _fits(cheapest, limits):
        return None
    tail = [_tail(levels, i) for i in range(len(levels) + 1)]
    states = {1: [Choice(0, 0, 0, ())]}
    for index, level in enumerate(levels):
        after: dict[int, list[Choice]] = {}
        pool: list[Choice] = []
        for count, loss in enumerate(level.loss, start=1):
            pool = _undominated([*pool, *states.get(count, [])], max_parameters is not None)
            grown = (_grow(state, level, count, loss) for state in pool)
            after[count] = [state for state in grown if _fits(_spend(state, tail[index + 1], count), limits)]
        states = after
    return min(state for group in states.values() for state in group)


def _undominated(states, both):
    kept = []
    if not both:
        least = None
        for s in sorted(states):
            if least is None or s.macs < least:
                least = s.macs
                kept.append(s)
        return kept
    steps: list[tuple[int, int]] = []
    for s in sorted(states):
        at = bisect_right(steps, (s.macs, float("inf")))
        if at and steps[at - 1][1] <= s.parameters:
            continue
        kept.append(s)
        end = bisect_left(steps, (s.macs, -1))
        last = end
        while last < len(steps) and steps[last][1] >= s.parameters:
            last += 1
        steps[end:last] = [(s.macs, s.parameters)]
    return kept


def choice_of(levels: Sequence[LevelOptions], counts: Sequence[int]) -> Choice:
    """The loss and cost of given counts."""
    choice = Choice(0, 0, 0, ())
    for level, count in zip(levels, counts, strict=True):
        choice = _grow(choice, level, count, level.loss[count - 1])
    return choice


def _grow(state: Choice, level: LevelOptions, count: int, loss: int) -> Choice:
    return Choice(
        state.loss + loss,
        state.macs + count * level.macs,
        state.parameters + count * level.parameters,
        (*state.counts, count),
    )


def _tail(levels: Sequence[LevelOptions], start: int) -> tuple[int, int]:
    """What one more group costs when it runs through all levels from `start` on."""
    return sum(level.macs for level in levels[start:]), sum(level.parameters for level in levels[start:])


def _spend(state: Choice, tail: tuple[int, int], count: int) -> Choice:
    """The state with its cheapest completion: the same number of groups to the end."""
    return Choice(state.loss, state.macs + count * tail[0], state.parameters + count * tail[1], state.counts)


def _fits(choice: Choice, limits: tuple[int | None, int | None]) -> bool:
    return all(
        limit is None or used <= limit for used, limit in zip((choice.macs, choice.parameters), limits, strict=True)
    )
