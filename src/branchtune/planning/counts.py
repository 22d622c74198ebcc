"""How many groups every level gets: the exact optimum under limits on MACs and parameters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from branchtune.planning.options import Choice, LevelOptions, Limits, choice_of, extend


def choose_counts(levels: Sequence[LevelOptions], limits: Limits) -> Choice | None:
    """The best choice of non-decreasing group counts within the limits.

    A dynamic programme over levels; a state is a choice for the levels so far. Dropped are states that another one
    beats in everything, and those that no completion keeps within the limits. What remains holds the optimum.

    Args:
        levels: in order, each with the losses of 1 to T groups.
        limits: on all groups together.

    Returns:
        None when one group at every level is already too much.
    """
    cheapest = choice_of(levels, (1,) * len(levels))
    if not limits.allow(cheapest):
        return None
    front = {1: [Choice(0, 0, 0, ())]}
    for index, level in enumerate(levels):
        after: dict[int, list[Choice]] = {}
        pool: list[Choice] = []
        for count in range(1, len(level.loss) + 1):
            pool = _undominated(pool + front.get(count, []), limits)
            # The cheapest way on is the same number of groups to the end.
            rest = choice_of(levels[index:], (count,) * (len(levels) - index))
            left = limits.less(rest)
            after[count] = [extend(state, level, count) for state in pool if left.allow(state)]
        front = after
    return min(state for states in front.values() for state in states)


def _undominated(states: Iterable[Choice], limits: Limits) -> list[Choice]:
    """The states that no other one beats or equals in loss, MACs and (where limited) parameters; sorted."""
    kept: list[Choice] = []
    # MACs (rising) and parameters (falling) of kept states that no other one undercuts in both
    steps: list[tuple[int, int]] = []
    for state in sorted(states):
        parameters = 0 if limits.parameters is None else state.parameters
        below = bisect_right(steps, (state.macs, parameters))
        if below and steps[below - 1][1] <= parameters:
            continue
        kept.append(state)
        start = end = bisect_left(steps, (state.macs, parameters))
        while end < len(steps) and steps[end][1] >= parameters:
            end += 1
        steps[start:end] = [(state.macs, parameters)]
    return kept
