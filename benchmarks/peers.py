"""What users have today: HF PEFT with a LoRA adapter for each task, and one shared encoder with heads."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import branchtune as bt
from branchtune.decoding import decode


class PeftModels(nn.Module):
    """A PEFT adapter for each task, and a forward pass of its own for every task.

    Args:
        model: of ours, whose decoders, tasks and rank are taken over.
        separate: a backbone for every task, each with one adapter; else one backbone whose adapters are switched.
    """

    def __init__(self, backbone: nn.Module, model: bt.MultiTaskModel, separate: bool = False) -> None:
        super().__init__()
        self.tasks, self.indices, self.separate = dict(model.tasks), len(model.spec.levels), separate
        assert isinstance(model.adapter, bt.LoRA)
        names = [site.name for site in model.backbone.sites.values()]
        config = LoraConfig(r=model.adapter.r, lora_alpha=round(model.adapter.lora_alpha), target_modules=names)
        first, *others = self.tasks
        self.encoders = nn.ModuleDict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoders[first] = get_peft_model(copy.deepcopy(backbone), config, adapter_name=first)
            for task in others:
                if separate:
                    self.encoders[task] = get_peft_model(copy.deepcopy(backbone), config, adapter_name=task)
                else:
                    self.encoders[task] = self.encoders[first]
                    self._encoder(task).add_adapter(task, config)
        self.to(next(backbone.parameters()).dtype)  # PEFT makes its adapters in float32
        self.decoders = copy.deepcopy(model.decoders)
        self.eval()

    def _encoder(self, task: str) -> Any:
        return self.encoders[task]

    def run(self, task: str, images: Tensor) -> Tensor:
        encoder = self._encoder(task)
        if not self.separate:
            encoder.set_adapter(task)
        maps = encoder.base_model.model.forward_intermediates(
            images, indices=self.indices, intermediates_only=True, norm=False
        )
        return decode(self.tasks[task], self.decoders[task], list(maps), (images.shape[2], images.shape[3]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {task: self.run(task, images) for task in self.tasks}

    def trainable(self, task: str) -> list[nn.Parameter]:
        adapters = [p for n, p in self.encoders[task].named_parameters() if f".{task}." in n]
        return [*adapters, *self.decoders[task].parameters()]


class SharedEncoder(nn.Module):
    """The plain backbone once, and a decoder per task."""

    def __init__(self, backbone: nn.Module, model: bt.MultiTaskModel) -> None:
        super().__init__()
        self.encoder: Any = copy.deepcopy(backbone)
        self.tasks, self.levels = dict(model.tasks), len(model.spec.levels)
        self.decoders = copy.deepcopy(model.decoders)
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: Sequence[Tensor] = self.encoder.forward_intermediates(
            images, indices=self.levels, intermediates_only=True, norm=False
        )
        size = (images.shape[2], images.shape[3])
        return {name: decode(task, self.decoders[name], list(maps), size) for name, task in self.tasks.items()}
