"""What users have today: HF PEFT with one LoRA adapter per task, switched in a loop; one shared encoder with heads."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import branchtune as bt
from branchtune.decoding import decode


class PeftLoop(nn.Module):
    """One backbone with a PEFT adapter per task; every task is a forward pass of its own with its adapter active.

    Args:
        model: of ours, whose decoders, tasks and rank are taken over.
    """

    def __init__(self, backbone: nn.Module, model: bt.MultiTaskModel) -> None:
        super().__init__()
        self.tasks, self.indices = dict(model.tasks), len(model.spec.levels)
        assert isinstance(model.adapter, bt.LoRA)
        names = [site.name for site in model.backbone.sites.values()]
        config = LoraConfig(r=model.adapter.r, lora_alpha=model.adapter.lora_alpha, target_modules=names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder = get_peft_model(copy.deepcopy(backbone), config, adapter_name=next(iter(self.tasks)))
            for task in list(self.tasks)[1:]:
                self.encoder.add_adapter(task, config)
        self.decoders = copy.deepcopy(model.decoders)
        self.eval()

    def features(self, task: str, images: Tensor) -> Sequence[Tensor]:
        self.encoder.set_adapter(task)
        return self.encoder.base_model.model.forward_intermediates(
            images, indices=self.indices, intermediates_only=True, norm=False
        )

    def run(self, task: str, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        return decode(self.tasks[task], self.decoders[task], list(self.features(task, images)), size)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {task: self.run(task, images) for task in self.tasks}

    def trainable(self, task: str) -> list[nn.Parameter]:
        adapters = [p for n, p in self.encoder.named_parameters() if f".{task}." in n]
        return [*adapters, *self.decoders[task].parameters()]


class SharedEncoder(nn.Module):
    """The plain backbone once, and a decoder per task."""

    def __init__(self, backbone: nn.Module, model: bt.MultiTaskModel) -> None:
        super().__init__()
        self.encoder, self.tasks = copy.deepcopy(backbone), dict(model.tasks)
        self.levels, self.decoders = len(model.spec.levels), copy.deepcopy(model.decoders)
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = list(
            self.encoder.forward_intermediates(images, indices=self.levels, intermediates_only=True, norm=False)
        )
        size = (images.shape[2], images.shape[3])
        return {name: decode(task, self.decoders[name], maps, size) for name, task in self.tasks.items()}


def set_trainable(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(True)


def mean_square(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([output.square().mean() for output in outputs.values()]).sum()
