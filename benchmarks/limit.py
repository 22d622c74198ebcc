"""The work that no implementation can avoid: the frozen levels, each at its folded batch size, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.arguments import replace_arguments, tensor_arguments
from branchtune.backbone.features import first_tensor
from branchtune.backbone.spec import BackboneSpec, Level


class _Done(Exception):
    """The last level has ended."""


class FrozenWork:
    """Runs the plain backbone; every level is given a stored input of `groups[level]` times the batch.

    Nothing is gathered, adapted or kept for decoders. The user's backbone is left as it was.

    Attributes:
        stored: the input of every level, by the name of its first module.
    """

    def __init__(self, backbone: nn.Module, spec: BackboneSpec, groups: Sequence[int], images: Tensor) -> None:
        self.backbone, self.images = copy.deepcopy(backbone).eval().requires_grad_(False), images
        self.stored: dict[str, Tensor] = {}
        modules = dict(self.backbone.named_modules())
        for level, count in zip(spec.levels, groups, strict=True):
            modules[level.start].register_forward_pre_hook(self._fold(level.start, count), with_kwargs=True)
        modules[spec.levels[-1].end].register_forward_hook(_stop)
        self()

    @torch.no_grad()
    def __call__(self) -> None:
        self._run()

    def _run(self) -> None:
        entry: Any = self.backbone.forward_features
        with suppress(_Done):
            entry(self.images)

    def _fold(self, name: str, count: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            key, stream = next(iter(tensor_arguments(args, kwargs).items()))
            if name not in self.stored:
                rows = stream[: len(self.images)]
                self.stored[name] = rows.repeat(count, *[1] * (stream.ndim - 1))
            return replace_arguments(args, kwargs, {key: self.stored[name]})

        return hook


class FrozenStep(FrozenWork):
    """The frozen work forward, and backward from the end of every level to its input: the limit of a training step.

    Args:
        autocast: makes the context of the forward pass.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        groups: Sequence[int],
        images: Tensor,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.autocast = autocast
        self.ends: list[Tensor] = []
        super().__init__(backbone, spec, groups, images)
        modules = dict(self.backbone.named_modules())
        for level in spec.levels:
            # Before the hook that stops after the last level.
            modules[level.end].register_forward_hook(self._keep, prepend=True)
        for stream in self.stored.values():
            stream.requires_grad_(True)
        self.backbone.train()

    @torch.enable_grad()
    def __call__(self) -> None:
        self.ends.clear()
        with self.autocast():
            self._run()
        if self.ends:
            for stream in self.stored.values():
                stream.grad = None
            torch.autograd.backward(self.ends, [torch.ones_like(end) for end in self.ends])
            self.ends.clear()

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self.ends.append(first_tensor(output))


class PlainPerGroup:
    """The plain levels run once for each of their groups, on one batch each: what merged adapters can reach."""

    def __init__(self, backbone: nn.Module, spec: BackboneSpec, groups: Sequence[int], images: Tensor) -> None:
        self.first = FrozenWork(backbone, spec, [1] * len(groups), images)
        self.further: list[tuple[list[nn.Module], Tensor]] = []
        for level, count in zip(spec.levels, groups, strict=True):
            modules = _modules(backbone, level)
            self.further += [(modules, self.first.stored[level.start])] * (count - 1)

    @torch.no_grad()
    def __call__(self) -> None:
        self.first()
        for modules, stream in self.further:
            for module in modules:
                stream = module(stream)


def _modules(backbone: nn.Module, level: Level) -> list[nn.Module]:
    """The modules of a level, which are neighbours in one container."""
    container, _, first = level.start.rpartition(".")
    children = dict(backbone.get_submodule(container).named_children())
    names = list(children)
    return [children[name] for name in names[names.index(first) : names.index(level.end.rpartition(".")[2]) + 1]]


def _stop(module: nn.Module, args: Any, output: Any) -> None:
    raise _Done
