"""Per-sample gradients of every task's loss: the interface, and the loop over samples that works everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.spec import Site
from branchtune.batch import Batch
from branchtune.model import MultiTaskModel


@dataclass(frozen=True)
class Layout:
    """Which part of a flat gradient `[P]` belongs to which parameter tensor and level.

    Attributes:
        levels: number of levels of the backbone.
        level_of: level of each tensor, never decreasing, so that a level is one slice.
        sizes: number of elements of each tensor.
    """

    levels: int
    level_of: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def level_slices(self) -> list[slice]:
        """The slice of every level; empty for a level without sites."""
        ends = [
            sum(size for size, at in zip(self.sizes, self.level_of, strict=True) if at <= level)
            for level in range(self.levels)
        ]
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class PerSampleGradients(ABC):
    """Gradients of each sample's own loss, one flat vector per task and sample."""

    layout: Layout

    @abstractmethod
    def chunks(self, batch: Batch) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """The gradients of a batch, in order: rows of the batch, and per task `[rows, P]`, zero where unlabelled."""


class SampleLoop(PerSampleGradients):
    """One forward per sample and one backward per sample and task; holds the gradients of one sample at a time.

    Args:
        model: in eval mode, every parameter frozen.
        parameters: what to differentiate with respect to, each with its level; levels never decrease.
    """

    def __init__(self, model: MultiTaskModel, parameters: Sequence[tuple[int, nn.Parameter]]) -> None:
        self.model = model
        self.parameters = [parameter.requires_grad_(True) for _, parameter in parameters]
        self.layout = Layout(
            len(model.spec.levels),
            tuple(level for level, _ in parameters),
            tuple(parameter.numel() for parameter in self.parameters),
        )

    def chunks(self, batch: Batch) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        for i in range(len(batch.images)):
            rows = slice(i, i + 1)
            tasks = [name for name, labelled in batch.labelled.items() if bool(labelled[i])]
            if not tasks:
                continue
            outputs = self.model(batch.images[rows], tasks, **{k: v[rows] for k, v in batch.inputs.items()})
            gradients = {}
            for name in tasks:
                loss = self.model.tasks[name].loss(outputs[name], batch.targets[name][rows])
                parts = differentiate(loss, self.parameters, retain_graph=name != tasks[-1])
                gradients[name] = torch.cat([part.reshape(1, -1) for part in parts], dim=1)
            yield rows, gradients


def differentiate(loss: Tensor, inputs: Sequence[Tensor], retain_graph: bool) -> list[Tensor]:
    """d loss / d inputs; zero where the loss does not depend on an input (a level its decoder does not read)."""
    if not loss.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return list(torch.autograd.grad(loss, inputs, retain_graph=retain_graph, allow_unused=True, materialize_grads=True))


def adapter_parameters(model: MultiTaskModel) -> list[tuple[int, nn.Parameter]]:
    """The parameters of a shared tree's adapters with their levels, but for LoRA's A: B = 0 keeps its gradient zero."""
    found = []
    for level in range(len(model.spec.levels)):
        for name, parameter in model.backbone.node_adapters(level, 0).named_parameters():
            if name.rpartition(".")[2] != "lora_A":
                found.append((level, parameter))
    return found


def site_weights(model: MultiTaskModel, sites: Iterable[Site]) -> list[tuple[int, nn.Parameter]]:
    """The frozen weights at these sites with their levels: a layer's weight, all parameters of a block."""
    modules: Mapping[str, Any] = dict(model.backbone.frozen.named_modules())
    found: dict[int, tuple[int, nn.Parameter]] = {}
    for site in sorted(sites, key=lambda site: site.level):
        module = modules[site.name]
        weights = module.parameters() if site.kind == "block" else [module.weight]
        for weight in weights:
            found.setdefault(id(weight), (site.level, weight))
    return list(found.values())
