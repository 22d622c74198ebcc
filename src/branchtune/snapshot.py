"""Copies of a model for inference, which hold its weights in another form: merged, or in low precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import nn

from branchtune.branching import BranchedBackbone
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel


class BackboneSnapshot(BranchedBackbone):
    """A copy of a branched backbone that does not train: frozen weights are shared with it, what it trains is copied.

    Args:
        source: left as it was.
        extras: names as the source was given them.

    Attributes:
        kind: what the copy is called in messages.
        verb: what is done again after a change of the source.
    """

    kind, verb = "copied", "copy"

    def __init__(self, source: BranchedBackbone, extras: Sequence[str]) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(source.frozen, source.spec, source.tree, source.adapter, extras, source.train_backbone)
        self.adapters = copy.deepcopy(source.adapters)
        self.rest()

    def rest(self) -> None:
        """No parameter trains, every module is in eval mode; also those put in since."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> BackboneSnapshot:
        """Stays in eval mode whatever `mode` is."""
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> BackboneSnapshot:
        if requires_grad:
            raise UserError(
                f"a {self.kind} model does not train: train the model that it was made from, and {self.verb} again"
            )
        return self


class ModelSnapshot(MultiTaskModel):
    """A model for inference: it holds no parameter that trains, and stays in eval mode whatever `train()` says.

    Training the model that it was made from does not change it. Both share the frozen weights that it does not hold in
    a form of its own.

    Args:
        model: what it was made from, left as it was.
        backbone: its backbone in the other form.

    Attributes:
        instead_of_saving: what to call after loading the model that it was made from.
    """

    instead_of_saving = ""

    @torch.inference_mode(False)
    def __init__(self, model: MultiTaskModel, backbone: BackboneSnapshot) -> None:
        nn.Module.__init__(self)  # the parts are those of `model`, nothing is built
        self.tasks, self.extras, self.decoder = dict(model.tasks), model.extras, model.decoder
        self.train_tasks: tuple[str, ...] = ()
        self.backbone: BackboneSnapshot = backbone
        self.decoders = copy.deepcopy(model.decoders)
        for parameter in self.decoders.parameters():
            parameter.requires_grad_(False)
        self._counts = model.count_parameters()
        self.eval()

    @property
    def kind(self) -> str:
        """In messages: "merged"."""
        return self.backbone.kind

    def count_parameters(self, *, trained_only: bool = False) -> dict[str, int]:
        """Parameters by owner, as of the model that it was made from; none of them trains."""
        return {} if trained_only else dict(self._counts)

    def trains(self, parameter: str) -> bool:
        return False

    def train(self, mode: bool = True) -> ModelSnapshot:
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> ModelSnapshot:
        self.backbone.requires_grad_(requires_grad)
        return self

    def add_task(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            f"this model is {self.kind}: change the tasks of the one that it was made from, and "
            f"{self.backbone.verb} that"
        )

    remove_task = training_only = add_task

    def merge(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"this model is {self.kind} already: use merge() of the one that it was made from")

    def low_memory(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"this model is {self.kind} already: use low_memory() of the one that it was made from")
