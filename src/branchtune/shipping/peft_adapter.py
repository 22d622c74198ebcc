"""The adapters on one task's path as a LoRA of PEFT."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from branchtune.adapters.lora import LoRA, is_depthwise
from branchtune.backbone.clone import clone_sharing_weights
from branchtune.backbone.spec import Site
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.shipping.quiet import quiet
from branchtune.snapshot import ModelSnapshot

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def check_method(model: MultiTaskModel) -> None:
    """Refuse what PEFT's LoRA cannot hold.

    Raises:
        UserError: names the adapter, site or extra, and what to use instead.
    """
    if isinstance(model, ModelSnapshot):
        raise UserError(f"a {model.kind} model lacks what PEFT would need: export the model that it was made from")
    adapter, instead = model.adapter, "use --format onnx or torch, or save_pretrained"
    if model.backbone.train_backbone:
        raise UserError(f"PEFT has no format for a backbone that was fine-tuned as a whole: {instead}")
    if adapter is None:
        raise UserError(f"this model has no adapter that PEFT could hold, it trains decoders only: {instead}")
    if type(adapter) is not LoRA:
        raise UserError(f"PEFT has no {type(adapter).__name__} adapter, only LoRA can be exported: {instead}")
    for site in model.backbone.sites.values():
        if is_depthwise(site):
            raise UserError(f"PEFT has no LoRA of the depthwise convolution {site.name!r}: {instead}")
        if site.dilation != (1, 1) and site.kernel_size != (1, 1):
            raise UserError(f"PEFT's LoRA ignores the dilation of {site.name!r}: {instead}")
    extra_modules(model)


def extra_modules(model: MultiTaskModel) -> list[str]:
    """The modules that own the trained extras: PEFT saves them whole, as `modules_to_save`.

    Raises:
        UserError: one of them contains a layer with an adapter, which PEFT does not adapt then.
    """
    owners = {name.rpartition(".")[0]: name for name in sorted(model.backbone.extra_names)}
    for module, parameter in owners.items():
        if not module or any(f"{site}.".startswith(f"{module}.") for site in model.backbone.sites):
            raise UserError(
                f"PEFT cannot hold the extra {parameter!r}: it saves whole modules, and {module or 'the backbone'!r} "
                "contains adapters; use --format onnx or torch, or save_pretrained"
            )
    return sorted(owners)


def lora_config(model: MultiTaskModel) -> LoraConfig:
    """What is the same for every task: ranks and scales per site, and the modules saved whole."""
    from peft import LoraConfig

    adapter = model.adapter
    assert isinstance(adapter, LoRA)
    ranks = {site.name: _rank(adapter, site) for site in model.backbone.sites.values()}
    alphas = {site.name: adapter.scale(site) * ranks[site.name] for site in model.backbone.sites.values()}
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.lora_dropout,
        target_modules="|".join(map(re.escape, ranks)),
        rank_pattern={_pattern(name): rank for name, rank in ranks.items() if rank != adapter.r},
        alpha_pattern={_pattern(name): alpha for name, alpha in alphas.items() if alpha != adapter.lora_alpha},
        modules_to_save=extra_modules(model) or None,
    )


def _pattern(name: str) -> str:
    return f"^{re.escape(name)}"


def _rank(adapter: LoRA, site: Site) -> int:
    """PEFT counts the ranks of all channel groups of a convolution together."""
    return site.groups * adapter.rank(site)


def task_adapter(model: MultiTaskModel, task: str) -> PeftModel:
    """The backbone with the adapters on the path of `task` as PEFT keeps them; frozen weights are shared."""
    from peft import get_peft_model

    frozen = model.backbone.frozen
    with quiet(), without_grouping_warning():  # torch logs warnings about torchao, which peft imports
        adapted: Any = get_peft_model(clone_sharing_weights(frozen), lora_config(model))
    base = adapted.get_base_model()
    path = model.tree.path(task)
    with torch.no_grad():
        for site in model.backbone.sites.values():
            own: Any = model.backbone.node_adapters(site.level, path[site.level])[site.key]
            layer = base.get_submodule(site.name)
            layer.lora_A["default"].weight.copy_(_down(own.lora_A, site))
            layer.lora_B["default"].weight.copy_(own.lora_B.reshape(layer.lora_B["default"].weight.shape))
    return adapted.eval()


def _down(weight: Tensor, site: Site) -> Tensor:
    """A `[groups * r, in / groups, kh, kw]` -> `[groups * r, in, kh, kw]`: PEFT's is not grouped."""
    if site.kind == "linear":
        return weight
    weight = weight.reshape(-1, site.in_channels // site.groups, *site.kernel_size)
    if site.groups == 1:
        return weight
    blocks = weight.unflatten(0, (site.groups, -1))
    dense = torch.zeros(*blocks.shape[:2], site.groups, *blocks.shape[2:]).to(weight)
    for group in range(site.groups):
        dense[group, :, group] = blocks[group]
    return dense.flatten(2, 3).flatten(0, 1)


@contextmanager
def without_grouping_warning() -> Iterator[None]:
    """PEFT warns that its adapters on grouped convolutions cannot be merged."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LoRA adapter added to ConvNd layer with groups > 1")
        yield
