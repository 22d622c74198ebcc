"""`plan`: cut the dendrogram of the tasks once per level, by given counts or within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.affinity.matrix import Affinity
from branchtune.cost import LevelCost, level_costs, stream_costs
from branchtune.errors import UserError, check_instance
from branchtune.planning.counts import choose_counts
from branchtune.planning.dendrogram import Cut, dendrogram_cuts, disagreement, opposed_groups
from branchtune.planning.options import LOSS_UNIT, LevelOptions, Limits
from branchtune.planning.ranks import with_ranks_within
from branchtune.scalars import real, whole
from branchtune.tree import TaskTree


def plan(
    affinity: Affinity,
    *,
    adapter: Adapter | None = None,
    groups: Sequence[int] | None = None,
    budget: float | None = None,
    budget_params: int | None = None,
    adapter_params: int | None = None,
    keep_agreeing: bool = False,
    noise_corrected: bool = True,
) -> TaskTree:
    """A tree whose groups are cuts of one average-linkage dendrogram on the overall affinity, so that they nest.

    With a budget, the numbers of groups are the exact optimum: they minimise the mean disagreement 1 - A within the
    groups of a level (over all pairs of tasks, those in different groups counting 0), summed over levels with each
    level's share of the adapter parameters as its weight. Among equals fewer MACs win, then fewer parameters.

    Args:
        affinity: measured, or `Affinity.from_matrix`.
        adapter: the adapter family that will be trained, default LoRA(); it decides what a group costs.
        groups: number of groups per level, e.g. (1, 1, 2, 4); instead of a budget.
        budget: backbone and adapter MACs as a multiple of one plain backbone pass, e.g. 1.6; decoders do not count.
        budget_params: adapter parameters. Both budgets may be given together.
        adapter_params: beside `budget`, in place of `budget_params`, where the ranks follow the tree so that its
            adapters hold at most this many whatever its shape (`with_ranks_within`): they then take about the same work
            in every tree. No effect beside `groups`.
        keep_agreeing: part no groups whose affinity is zero or above on average. Levels then have fewer groups than
            `groups` says or the budget allows where tasks agree: a fork between them would divide the parameters
            and the data that each is trained with, and end no conflict.
        noise_corrected: plan with `Affinity.corrected`. The plain matrix shrinks towards zero where gradients are
            noisy, so that a noisy level or task would seem to disagree more than it does.

    Raises:
        UserError: not exactly one of groups and budgets; counts that do not fit the levels; an infeasible budget.
    """
    if not isinstance(affinity, Affinity):
        raise UserError(
            f"plan takes an Affinity, got {affinity!r}: measure_affinity(...) or Affinity.load(path) give one"
        )
    check_instance("adapter", adapter, Adapter, "LoRA(r=8)")
    matrix = affinity.corrected() if noise_corrected else affinity.overall
    cuts = dendrogram_cuts(matrix)
    if keep_agreeing:
        cuts = cuts[: opposed_groups(matrix)]
    if groups is not None:
        if budget is not None or budget_params is not None:
            raise UserError("plan: groups fixes the tree, so a budget has no effect: give one or the other")
        counts = tuple(min(count, len(cuts)) for count in _check_groups(groups, affinity))
    elif budget is None and budget_params is None:
        raise UserError("plan needs groups=(1, 1, 2, ...), budget=1.6 or budget_params=100_000")
    else:
        adapter = adapter or LoRA()
        costs: Sequence[LevelCost] = level_costs(affinity.spec, adapter)
        streams = stream_costs(affinity.spec, adapter, len(affinity.tasks))
        fixed_macs, own = sum(cost.macs for cost in streams), sum(cost.parameters for cost in streams)
        if adapter_params is not None:
            if budget_params is not None:
                raise UserError(
                    "plan: adapter_params (a run's adapter_share) fixes the parameters of every tree: leave "
                    "budget_params out"
                )
            costs, of_ranks = _costs_of_fitted_ranks(affinity, adapter, adapter_params)
            fixed_macs += of_ranks
            budget_params = adapter_params
        fixed = LevelCost(own, affinity.spec.stem_macs, fixed_macs)
        counts = _counts_within(affinity, cuts, costs, fixed, budget, budget_params, noise_corrected)
    return TaskTree([[[affinity.tasks[i] for i in group] for group in cuts[count - 1]] for count in counts])


def _check_groups(groups: Sequence[int], affinity: Affinity) -> tuple[int, ...]:
    spec, tasks = affinity.spec, len(affinity.tasks)
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise UserError(f"groups={groups!r}: give one number for each level, such as groups=(1, 1, 2, 4)")
    try:
        counts = tuple(whole("groups", count) for count in groups)
    except UserError as error:
        raise UserError(
            f"groups={tuple(groups)}: every level has between 1 and {tasks} groups, as a whole number"
        ) from error
    if len(counts) != len(spec.levels):
        raise UserError(
            f"groups={counts} names {len(counts)} levels, {spec.name} has {len(spec.levels)}: {spec.describe_levels()}"
        )
    if not all(1 <= count <= tasks for count in counts):
        raise UserError(f"groups={counts}: every level has between 1 and {tasks} groups, as there are {tasks} tasks")
    if list(counts) != sorted(counts):
        raise UserError(f"groups={counts} decreases: tasks separated once cannot share again")
    return counts


def _costs_of_fitted_ranks(
    affinity: Affinity, adapter: Adapter, adapter_params: int
) -> tuple[Sequence[LevelCost], int]:
    """What a group costs where ranks follow the tree, and the adapters' MACs that are the same in every tree.

    No group has less than rank 1, which counts on top: then every tree that is allowed can be built.
    """
    spec = affinity.spec
    shared = TaskTree.shared(affinity.tasks, len(spec.levels))
    sized = with_ranks_within(adapter, spec, shared, adapter_params)
    fixed = sum(cost.adapter_macs for cost in level_costs(spec, sized))
    return level_costs(spec, sized.with_ranks([1] * len(spec.levels))), fixed


def _counts_within(
    affinity: Affinity,
    cuts: Sequence[Cut],
    costs: Sequence[LevelCost],
    fixed: LevelCost,
    budget: float | None,
    budget_params: int | None,
    noise_corrected: bool,
) -> tuple[int, ...]:
    """Numbers of groups within the budgets; `fixed` is what every tree costs."""
    limits = Limits(
        None if budget is None else _mac_limit(real("budget", budget), affinity.spec.macs) - fixed.macs,
        None if budget_params is None else _parameter_limit(budget_params) - fixed.parameters,
    )
    choice = choose_counts(_options(affinity, cuts, costs, noise_corrected), limits)
    if choice is None:
        raise _infeasible(affinity, costs, fixed, budget, budget_params)
    return choice.counts


def _options(
    affinity: Affinity, cuts: Sequence[Cut], costs: Sequence[LevelCost], noise_corrected: bool
) -> list[LevelOptions]:
    parameters = sum(cost.parameters for cost in costs)
    options = []
    for level, cost in enumerate(costs):
        matrix = affinity.corrected(level) if noise_corrected else affinity.per_level[level]
        share = cost.parameters / parameters
        losses = (round(share * disagreement(matrix, cut) / LOSS_UNIT) for cut in cuts)
        options.append(LevelOptions(tuple(losses), cost.macs, cost.parameters))
    return options


def _mac_limit(budget: float, backbone_macs: int) -> int:
    """The most MACs whose ratio to one backbone pass is at most the budget, as `TreeCost.ratio` computes it."""
    if not 0 < budget < math.inf:
        raise UserError(f"budget={budget}: give a positive multiple of one backbone pass, such as 1.6")
    limit = math.floor(budget * backbone_macs)
    while (limit + 1) / backbone_macs <= budget:
        limit += 1
    while limit / backbone_macs > budget:
        limit -= 1
    return limit


def _parameter_limit(budget_params: Any) -> int:
    limit = real("budget_params", budget_params)
    if not math.isfinite(limit):
        raise UserError(f"budget_params={budget_params}: give a number of parameters, such as 100_000")
    return int(limit)


def _infeasible(
    affinity: Affinity, costs: Sequence[LevelCost], fixed: LevelCost, budget: float | None, budget_params: int | None
) -> UserError:
    """Names each budget that one group at every level passes, and the cheapest feasible one (rounded up)."""
    spec = affinity.spec
    ratio = (fixed.macs + sum(cost.macs for cost in costs)) / spec.macs
    parameters = fixed.parameters + sum(cost.parameters for cost in costs)
    problems = []
    if budget is not None and ratio > budget:
        problems.append(f"budget={budget:g} (at least {math.ceil(ratio * 1000) / 1000:.3f})")
    if budget_params is not None and parameters > budget_params:
        problems.append(f"budget_params={budget_params} (at least {parameters})")
    return UserError(
        f"infeasible {' and '.join(problems)}: one group at every level costs that much; "
        "raise it, or choose a smaller adapter"
    )
