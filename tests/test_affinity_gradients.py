"""The fast per-sample gradients of LoRA against the loop over samples, on the layers that backbones have."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from affinity_cases import PLAIN_LEVELS, ByKeyword, Fit, Plain, batches, drop_labels, swin
from branchtune.adapters.adapter import Adapter
from branchtune.adapters.bottleneck import Bottleneck
from branchtune.adapters.lora import LoRA
from branchtune.affinity.collect import to_batch
from branchtune.affinity.gradients import Layout, SampleLoop, adapter_parameters, site_weights
from branchtune.affinity.lora_gradients import LoRAGradients
from branchtune.model import MultiTaskModel
from branchtune.tasks.regression import ImageRegression

TASKS = [Fit("a"), Fit("b", sign=-1.0), ImageRegression("c", 2)]


def model_of(backbone: nn.Module, adapter: Adapter | None, levels: Any = None) -> MultiTaskModel:
    torch.manual_seed(3)
    model = MultiTaskModel(backbone.double(), TASKS, adapter=adapter, levels=levels, image_size=32).double()
    return model.eval().requires_grad_(False)


def gradients(model: MultiTaskModel, source: Any) -> dict[str, Tensor]:
    loader = batches(TASKS, images=5, batch=5)
    loader[0]["c"] = torch.arange(10, dtype=torch.float64).view(5, 2)
    drop_labels(loader, "b", [1, 3])
    batch = to_batch(model, loader[0], 5, ())
    found = {task.name: torch.zeros(5, source.layout.total, dtype=torch.float64) for task in TASKS}
    for rows, parts in source.chunks(batch):
        for name, part in parts.items():
            found[name][rows] = part
    return found


def timm_model(name: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    backbone = timm.create_model(name, **kwargs)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # some start at zero, which hides their block
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return backbone


CASES: dict[str, Any] = {
    "swin": lambda: (swin(), LoRA(r=3), None),
    "swin with merging": lambda: (swin(), LoRA(r=2, target_modules=["qkv", "reduction"]), "after_merging"),
    "vit": lambda: (
        timm_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=2),
        LoRA(r=2, rank_pattern={1: 4}),
        None,
    ),
    "pvt": lambda: (
        timm_model("pvt_v2_b0", depths=(1, 1, 1, 1), embed_dims=(8, 16, 24, 32), num_heads=(1, 2, 3, 4)),
        LoRA(r=2, target_modules=["q", "kv", "proj", "fc1", "dwconv", "sr"]),
        None,
    ),
    "resnet": lambda: (timm_model("resnet10t", channels=(8, 8, 16, 16)), LoRA(r=2), None),
    "grouped": lambda: (
        timm_model("regnetx_002", group_size=8),
        LoRA(r=2, target_modules=r"s[1-4]\.b1\.conv\d\.conv"),
        None,
    ),
    "convnext": lambda: (
        timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 24)),
        LoRA(r=2, target_modules=["conv_dw", "fc1"]),
        None,
    ),
    "a site ends the level": lambda: (Plain(), LoRA(r=2), PLAIN_LEVELS),
    "called by keyword": lambda: (ByKeyword(), LoRA(r=2), PLAIN_LEVELS),
}


@pytest.mark.parametrize("case", CASES)
def test_one_backward_per_task_equals_the_loop_over_samples(case: str) -> None:
    backbone, adapter, levels = CASES[case]()
    model, twin_model = model_of(backbone, None, levels), model_of(backbone, adapter, levels)
    model.decoders.load_state_dict(twin_model.decoders.state_dict())
    twin = SampleLoop(twin_model, adapter_parameters(twin_model))
    torch.manual_seed(3)
    fast = LoRAGradients(model, adapter)
    assert fast.layout == twin.layout
    found, expected = gradients(model, fast), gradients(twin_model, twin)
    for name, value in expected.items():
        scale = value.abs().max()
        assert scale > 0
        torch.testing.assert_close(found[name] / scale, value / scale, rtol=0, atol=1e-10)
    assert (found["b"][[1, 3]] == 0).all()
    assert (found["b"][0] != 0).any()


def test_the_gradient_of_a_is_zero_because_b_is() -> None:
    model = model_of(swin(), LoRA(r=2))
    matrices = [p for n, p in model.backbone.adapters.named_parameters() if n.endswith("lora_A")]
    assert matrices
    found = gradients(model, SampleLoop(model, [(0, p) for p in matrices]))
    assert all((value == 0).all() for value in found.values())


@pytest.mark.parametrize("source", ["adapters", "weights"])
def test_bottleneck_has_gradients_at_every_level(source: str) -> None:
    model = model_of(swin(), Bottleneck(reduction=4))
    parameters = (
        adapter_parameters(model) if source == "adapters" else site_weights(model, model.backbone.sites.values())
    )
    loop = SampleLoop(model, parameters)
    found = gradients(model, loop)
    for part in loop.layout.level_slices():
        assert (found["a"][:, part] != 0).any()


def test_weights_are_those_of_the_sites_only() -> None:
    model = model_of(swin(), LoRA(target_modules=["qkv"], r=2))
    weights = dict(model.backbone.frozen.named_parameters())
    expected = {name for name in weights if name.endswith("qkv.weight")}
    assert {id(p) for _, p in site_weights(model, model.backbone.sites.values())} == {
        id(weights[name]) for name in expected
    }


def test_layout_slices_of_levels_with_and_without_sites() -> None:
    layout = Layout(4, (1, 1, 3), (2, 3, 4))
    assert layout.level_slices() == [slice(0, 0), slice(0, 5), slice(5, 5), slice(5, 9)]
    assert layout.total == 9
