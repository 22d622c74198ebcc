"""Ranks by a number of parameters, so that trees of any shape can be compared at one size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import tree_cost
from branchtune.errors import UserError
from branchtune.tree import TaskTree


def with_ranks_within(
    adapter: Adapter, spec: BackboneSpec, tree: TaskTree, parameters: int, budget: float = math.inf
) -> Adapter:
    """`adapter` with the largest ranks at which the tree's adapters hold at most `parameters`.

    Every level gets about what one shared set of rank R would have there: each of its G groups has rank
    max(1, R // G), with the largest R that fits. What is left raises whole levels by one, from the first on.

    Args:
        adapter: a family with ranks.
        spec: the traced backbone.
        tree: for which the parameters are counted.
        parameters: the limit.
        budget: a limit on the MACs too, as a multiple of one plain backbone pass.

    Raises:
        UserError: an adapter without ranks, or rank 1 everywhere is already too much.
    """
    groups = tree.group_counts

    def fits(ranks: Sequence[int]) -> bool:
        cost = tree_cost(spec, tree, adapter.with_ranks(ranks))
        return cost.parameters <= parameters and cost.ratio <= budget

    def even(rank: int) -> list[int]:
        return [max(1, rank // count) for count in groups]

    if not fits(even(1)):
        least = tree_cost(spec, tree, adapter.with_ranks(even(1)))
        limit = f"{parameters:,} adapter parameters" + (f" and budget {budget:g}" if budget < math.inf else "")
        raise UserError(
            f"{limit} are too few for groups {groups}: rank 1 has {least.parameters:,} parameters and "
            f"{least.ratio:.3f} times the MACs of one backbone pass"
        )
    rank = 1
    while fits(even(2 * rank)):
        rank *= 2
    step = rank
    while step := step // 2:
        rank += step if fits(even(rank + step)) else 0
    ranks = even(rank)
    for level in range(len(ranks)):
        raised = [r + (i == level) for i, r in enumerate(ranks)]
        ranks = raised if fits(raised) else ranks
    return adapter.with_ranks(ranks)
