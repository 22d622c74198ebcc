"""Nodes of a level that move as one for the first epochs: tasks share while they agree, and part afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import nn

from branchtune.errors import UserError
from branchtune.model import MultiTaskModel


class TiedNodes(L.Callback):
    """For the first epochs every node of a level gets the sum of their gradients, as one shared node would.

    Nodes that start alike and get the same gradients stay alike under any optimiser that treats them alike; after the
    tied epochs each goes its own way, with the values and moments that all have contributed to. Clipping counts the
    gradient of every node.

    Args:
        model: that is trained.
        epochs: how many epochs the nodes are tied.

    Raises:
        UserError: some nodes are at rest.
    """

    def __init__(self, model: MultiTaskModel, epochs: int) -> None:
        if len(model.train_tasks) < len(model.tasks):
            raise UserError("tree.tied_epochs ties all nodes of a level, but some do not train: set it to 0")
        self.model, self.epochs = model, epochs

    @torch.no_grad()
    def make_alike(self) -> None:
        """Give all nodes of a level the values of its first one."""
        for first, *others in self._tied():
            for parameter in others:
                parameter.copy_(first)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        if trainer.current_epoch >= self.epochs:
            return
        for parameters in self._tied():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                total = torch.stack(gradients).sum(0)
                for parameter in parameters:
                    parameter.grad = total.clone()

    def _tied(self) -> Iterator[tuple[nn.Parameter, ...]]:
        """What is the same parameter of every node of a level."""
        backbone = self.model.backbone
        for level, groups in enumerate(self.model.tree.levels):
            if backbone.adapter is not None and len(groups) > 1:
                nodes = [backbone.node_adapters(level, group).parameters() for group in range(len(groups))]
                yield from zip(*nodes, strict=True)
