"""`MergedModel`, what `MultiTaskModel.merge` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from branchtune.cost import LevelCost, TreeCost
from branchtune.errors import UserError
from branchtune.merging.backbone import MergedBackbone
from branchtune.merging.choice import LevelChoice
from branchtune.model import MultiTaskModel
from branchtune.snapshot import ModelSnapshot


class MergedModel(ModelSnapshot):
    """A model whose adapters are folded into copies of the weights, level by level, where that was chosen.

    Args:
        model: what was merged.
        backbone: its merged backbone.
        choices: one per level.

    Attributes:
        choices: per level what was done, what it copies and saves, and why; `describe()` gives them in text.
    """

    instead_of_saving = "merge()"

    def __init__(self, model: MultiTaskModel, backbone: MergedBackbone, choices: Sequence[LevelChoice]) -> None:
        super().__init__(model, backbone)
        self.choices = tuple(choices)
        self._counts = _counts(model, backbone)

    def describe(self) -> str:
        """One line per level: merged or live, parameters copied, multiply-accumulates saved, and the reason."""
        return "\n".join(map(str, self.choices))

    def cost(self) -> TreeCost:
        """As of the unmerged model, without the adapters of merged levels.

        What does not see the batch (networks over relative positions) runs once per group there, and is counted with
        every group beyond the first.
        """
        cost = super().cost()
        merged = {choice.level: choice.macs_repeated for choice in self.choices if choice.merged}
        nodes = tuple(
            (node, LevelCost(0, here.frozen_macs + (merged[node.level] if node.index else 0), 0))
            if node.level in merged
            else (node, here)
            for node, here in cost.nodes
        )
        return replace(cost, nodes=nodes)

    def count_parameters(self, *, trained_only: bool = False) -> dict[str, int]:
        """Parameters by owner; none of them trains. `merged`: weights that adapters were folded into, every copy."""
        return {} if trained_only else dict(self._counts)

    def low_memory(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "this model is merged: low precision would round its adapters with the weights that hold them; use "
            "low_memory() of the model that it was made from, whose adapters stay live and exact"
        )


def _counts(model: MultiTaskModel, backbone: MergedBackbone) -> dict[str, int]:
    counts = model.count_parameters()
    counts["adapters"] = sum(parameter.numel() for parameter in backbone.adapters.parameters())
    counts["merged"] = 0
    source = model.backbone
    for name, site in source.sites.items():
        if name not in backbone.sites:
            weight: Any = source.frozen.get_submodule(name).weight
            counts[model.owner_of(f"backbone.frozen.{name}.weight")[0]] -= weight.numel()
            counts["merged"] += len(model.tree.levels[site.level]) * weight.numel()
    return counts
