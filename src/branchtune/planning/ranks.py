"""Ranks by a number of parameters, so that trees of any shape can be compared at one size."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import tree_cost
from branchtune.errors import UserError
from branchtune.tree import TaskTree


def with_ranks_within(
    adapter: Adapter, spec: BackboneSpec, tree: TaskTree, parameters: int, budget: float = math.inf
) -> Adapter:
    """`adapter` with ranks at which the tree's adapters hold at most `parameters`, and usually nearly as many.

    Every level gets about what one shared set of rank R would have there: each of its G groups has rank
    max(1, R // G), with the largest R that fits. What is left raises whole levels by one, from the first on. No rank
    passes what its level's layers can use. In the comb only the shared rank follows.

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
    least = tree_cost(spec, tree, adapter.with_ranks([1] * len(groups)))
    if least.parameters > parameters or least.ratio > budget:
        limit = f"{parameters:,} adapter parameters" + (f" and budget {budget:g}" if budget < math.inf else "")
        raise UserError(
            f"{limit} are too few for groups {groups}: rank 1 has {least.parameters:,} parameters and "
            f"{least.ratio:.3f} times the MACs of one backbone pass"
        )
    most = max(min(site.in_channels, site.out_channels) for site in adapter.select_sites(spec))

    def fits(ranks: Sequence[int]) -> bool:
        cost = tree_cost(spec, tree, adapter.with_ranks(ranks))
        return cost.parameters <= parameters and cost.ratio <= budget

    def even(rank: int) -> list[int]:
        return [min(most, max(1, rank // count)) for count in groups]

    # The first that does not fit comes after the largest that does.
    candidates = range(1, most * max(groups) + 1)
    ranks = even(bisect_left(candidates, True, key=lambda rank: not fits(even(rank))))
    for level in range(len(ranks)):
        raised = [min(most, r + (i == level)) for i, r in enumerate(ranks)]
        ranks = raised if fits(raised) else ranks
    return adapter.with_ranks(ranks)
