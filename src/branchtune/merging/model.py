"""`MergedModel`, what `MultiTaskModel.merge` returns."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import nn

from branchtune.cost import LevelCost, TreeCost
from branchtune.errors import UserError
from branchtune.merging.backbone import MergedBackbone
from branchtune.merging.choice import LevelChoice
from branchtune.model import MultiTaskModel


class MergedModel(MultiTaskModel):
    """A model whose adapters are folded into copies of the weights, level by level, where that was chosen.

    For inference only: it holds no parameter that trains, and stays in eval mode whatever `train()` says. It is a
    snapshot: training the model that it was made from does not change it. Both share the frozen weights that merging
    does not change.

    Args:
        model: what was merged.
        backbone: its merged backbone.
        choices: one per level.

    Attributes:
        choices: per level what was done, what it copies and saves, and why; `describe()` gives them in text.
    """

    @torch.inference_mode(False)
    def __init__(self, model: MultiTaskModel, backbone: MergedBackbone, choices: Sequence[LevelChoice]) -> None:
        nn.Module.__init__(self)  # the parts are those of `model`, nothing is built
        self.tasks, self.extras, self.decoder = dict(model.tasks), model.extras, model.decoder
        self.train_tasks: tuple[str, ...] = ()
        self.backbone = backbone
        self.decoders = copy.deepcopy(model.decoders)
        self.choices = tuple(choices)
        for parameter in self.decoders.parameters():
            parameter.requires_grad_(False)
        self._counts = _counts(model, backbone)
        self.eval()

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

    def train(self, mode: bool = True) -> MergedModel:
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> MergedModel:
        self.backbone.requires_grad_(requires_grad)
        return self

    def add_task(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError("this model is merged: change the tasks of the one that it was made from, and merge that")

    remove_task = training_only = add_task

    def merge(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError("this model is merged already: merge the one that it was made from")


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
