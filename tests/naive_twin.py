"""The naive twin of a branched model: task by task along its path, every adapter's formula written out.

Nothing here is folded: a plain copy of the user's backbone runs once per task with plain hooks that add that one
task's adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt

Parameters = Mapping[str, Tensor]


class NaiveTwin:
    """Own copies of a model's weights, and its forward pass one task at a time.

    Attributes:
        parameters: every trainable parameter by its name in the model, as a leaf of the twin's own graph.
    """

    def __init__(self, model: bt.MultiTaskModel, backbone: nn.Module) -> None:
        self.model = model
        self.parameters = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.backbone = copy.deepcopy(backbone).to(next(model.parameters()).dtype).eval().requires_grad_(False)
        self.decoders = copy.deepcopy(model.decoders)

    def __call__(self, images: Tensor, inputs: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        return {name: self.run(name, images, dict(inputs or {})) for name in self.model.tasks}

    def run(self, task: str, images: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The output of one task: the adapters on its path added to the plain backbone."""
        handles = [
            self.backbone.get_submodule(site.name).register_forward_hook(self._adapted(task, site))
            for site in self.model.backbone.sites.values()
        ]
        try:
            maps = self._features(images, inputs)
        finally:
            for handle in handles:
                handle.remove()
        size = (images.shape[2], images.shape[3])
        own = {n.removeprefix(f"decoders.{task}."): p for n, p in self.parameters.items()}
        head = self.decoders[task]
        raw = torch.func.functional_call(head, {n: own[n] for n, _ in head.named_parameters()}, (maps, size))
        return self.model.tasks[task].activate(raw)

    def _features(self, images: Tensor, inputs: dict[str, Any]) -> list[Tensor]:
        spec = self.model.spec
        prefix = "backbone.frozen."
        extras = {n.removeprefix(prefix): p for n, p in self.parameters.items() if n.startswith(prefix)}
        kept: dict[str, Tensor] = {}
        handles = [
            self.backbone.get_submodule(level.end).register_forward_hook(_keep(kept, level.end))
            for level in spec.levels
        ]
        method = "forward_features" if hasattr(self.backbone, "forward_features") else "forward"
        arguments: dict[str, Any] = inputs
        if spec.levels[0].feature.layout == "intermediates":
            indices = range(len(spec.levels))
            method, arguments = (
                "forward_intermediates",
                {"indices": list(indices), "intermediates_only": True, "norm": False},
            )
        try:
            result = torch.func.functional_call(
                _Method(self.backbone, method), {f"module.{n}": p for n, p in extras.items()}, images, arguments
            )
        finally:
            for handle in handles:
                handle.remove()
        if method == "forward_intermediates":
            return list(result)
        return [_as_map(kept[level.end], level.feature) for level in spec.levels]

    def _adapted(self, task: str, site: Any) -> Callable[..., Tensor]:
        group = next(g for g in self.model.tree.levels[site.level] if task in g)
        prefix = f"backbone.adapters.{site.level}/{'+'.join(group)}.{site.name.replace('.', '/')}."
        own = {n.removeprefix(prefix): p for n, p in self.parameters.items() if n.startswith(prefix)}
        adapter = self.model.adapter
        formula = lora_formula if isinstance(adapter, bt.LoRA) else bottleneck_formula

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return formula(adapter, site, module, own, args, output)

        return hook


class _Method(nn.Module):
    """Calls another method of a module, so that `functional_call` can replace its parameters."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, images: Tensor, **inputs: Any) -> Any:
        return getattr(self.module, self.method)(images, **inputs)


def _keep(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept[name] = output[0] if isinstance(output, tuple) else output

    return hook


def _as_map(raw: Tensor, feature: Any) -> Tensor:
    if feature.layout == "NHWC":
        return raw.permute(0, 3, 1, 2)
    if feature.layout == "NLC":
        tokens = raw[:, feature.prefix_tokens :]
        return tokens.permute(0, 2, 1).reshape(len(raw), feature.channels, feature.height, feature.width)
    return raw


def lora_formula(
    adapter: Any, site: Any, module: nn.Module, own: Parameters, args: tuple[Any, ...], output: Tensor
) -> Tensor:
    """W0 x + b + (alpha / r) B A x; for a depthwise convolution (W0 + dW) * x + b."""
    x = args[0]
    rank = adapter.rank_pattern.get(site.level, adapter.r)
    scale = adapter.lora_alpha / rank
    if isinstance(module, nn.Linear):
        return output + scale * F.linear(F.linear(x, own["lora_A"]), own["lora_B"])
    assert isinstance(module, nn.Conv2d)
    geometry = (module.stride, module.padding, module.dilation, module.groups)
    if "kernel" in own:
        return output + F.conv2d(x, own["kernel"], None, *geometry)  # type: ignore[arg-type]
    down, up = own["lora_A"], own["lora_B"]
    if down.ndim == 2:
        down, up = down[:, :, None, None], up[:, :, None, None]
    hidden = F.conv2d(x, down, None, *geometry)  # type: ignore[arg-type]
    return output + scale * F.conv2d(hidden, up, groups=module.groups)


def bottleneck_formula(
    adapter: Any, site: Any, module: nn.Module, own: Parameters, args: tuple[Any, ...], output: Tensor
) -> Tensor:
    """h + W_up act(W_down h + b_down) + b_up over the channels of h."""
    activation = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[adapter.activation]
    if output.ndim == 4 and site.channel_axis == 1:
        hidden = activation(F.conv2d(output, own["down"][:, :, None, None], own["down_bias"]))
        return output + F.conv2d(hidden, own["up"][:, :, None, None], own["up_bias"])
    hidden = activation(F.linear(output, own["down"], own["down_bias"]))
    return output + F.linear(hidden, own["up"], own["up_bias"])
