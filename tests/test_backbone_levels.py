"""Levels: how they are named, where they begin and end, and which are refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune import UserError
from contract_backbones import CONTRACTS, TREES, MaskedNet, grow, randomise, traced
from naive_twin import NaiveTwin


class Stages(nn.Module):
    """Four convolutions one after the other, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.one, self.two, self.three, self.four = (nn.Conv2d(8, 8, 1) for _ in range(4))
        self.unused = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.four(self.three(self.two(self.one(self.stem(x)))))


def spans(spec: Any) -> list[tuple[str, str]]:
    return [(level.start, level.end) for level in spec.levels]


def message(backbone: nn.Module, *args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        bt.trace_backbone(backbone, *args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("swin_tiny", [(16, 16), (32, 8), (64, 4), (128, 2)]),
        ("swin_tiny_after_merging", [(32, 8), (64, 4), (128, 2), (128, 2)]),
        ("hiera_tiny", [(16, 16), (32, 8), (64, 4), (128, 2)]),
        ("resnet18", [(8, 16), (16, 8), (24, 4), (32, 2)]),
        ("vit_tiny", [(24, 4)] * 4),
    ],
)
def test_feature_shapes(name: str, features: list[tuple[int, int]]) -> None:
    levels = traced(name)[1].levels
    assert [(f.channels, f.height, f.width) for f in (level.feature for level in levels)] == [
        (c, size, size) for c, size in features
    ]


def test_non_square_images_keep_their_aspect() -> None:
    feature = traced("deit_tiny")[1].levels[-1].feature
    assert (feature.height, feature.width) == (3, 4)


def test_levels_after_merging_fork_after_the_merging() -> None:
    assert spans(traced("swin_tiny_after_merging")[1]) == [
        ("layers.0.blocks", "layers.1.downsample"),
        ("layers.1.blocks", "layers.2.downsample"),
        ("layers.2.blocks", "layers.3.downsample"),
        ("layers.3.blocks", "layers.3"),
    ]


def test_plain_vit_is_cut_into_four_runs_of_blocks() -> None:
    assert spans(traced("deit_tiny")[1])[:2] == [("blocks.0", "blocks.1"), ("blocks.2", "blocks.2")]


def test_levels_by_module_names_and_runs() -> None:
    vit = traced("deit_tiny")[0]
    spec = bt.trace_backbone(vit, ["blocks.0:blocks.2", "blocks.3:blocks.4"], (48, 64))
    assert spans(spec) == [("blocks.0", "blocks.2"), ("blocks.3", "blocks.4")]
    assert [sum(site.level == i and site.kind == "linear" for site in spec.sites) for i in (0, 1)] == [12, 8]


def test_one_level() -> None:
    spec = bt.trace_backbone(traced("vit_tiny")[0], ["blocks.0:blocks.3"], 64)
    model = bt.MultiTaskModel(traced("vit_tiny")[0], [bt.Depth("b")], adapter=bt.LoRA(r=2), spec=spec)
    assert model.tree.num_levels == 1
    assert model(CONTRACTS["vit_tiny"].images(1))["b"].shape == (1, 1, 64, 64)


def test_what_runs_between_two_levels_belongs_to_the_one_before() -> None:
    spec = bt.trace_backbone(Stages(), ["one", "three"], 32)
    assert {site.name: site.level for site in spec.sites} == {"one": 0, "two": 0, "three": 1}
    assert [level.macs for level in spec.levels] == [2 * 8 * 8 * 64, 8 * 8 * 64]
    assert spec.macs == (3 * 16 + 3 * 8) * 8 * 64


def test_a_layer_that_never_runs_and_one_after_the_last_level_are_no_sites() -> None:
    spec = bt.trace_backbone(Stages(), ["one", "two"], 32)
    assert [site.name for site in spec.sites] == ["one", "two"]
    assert set(spec.parameters) == {f"{m}.{p}" for m in ("stem", "one", "two") for p in ("weight", "bias")}


def test_tracing_inside_no_grad_finds_the_same() -> None:
    backbone = Stages()
    outside = bt.trace_backbone(backbone, ["one", "four"], 32)
    assert len(outside.parameters) == 10
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert bt.trace_backbone(backbone, ["one", "four"], 32) == outside


def test_module_without_feature_info_and_without_levels() -> None:
    assert "MaskedNet has no feature_info: pass levels=[...]" in message(MaskedNet(16), image_size=64)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["block.0"], "unknown level (module of the backbone) 'block.0': did you mean 'blocks.0'"),
        (["blocks.0:blocks.9"], "unknown level (module of the backbone) 'blocks.9'"),
        (["blocks.0.attn.qvk"], "did you mean 'blocks.0.attn.qkv'"),
        ([], "levels=[] is empty"),
        ("blocks", "use 'natural', 'after_merging' or a list"),
        ("after_merging", "needs a Swin backbone"),
        (["blocks.2", "blocks.0"], "never ran module 'blocks.0' as the end of level 1"),
        (["blocks.0", "blocks.0"], "never ran module 'blocks.0' as the end of level 1"),
        (["blocks.3:blocks.1"], "never ran module 'blocks.1' as the end of level 0"),
    ],
)
def test_levels_that_do_not_exist_or_are_out_of_order(levels: Any, expected: str) -> None:
    assert expected in message(traced("vit_tiny")[0], levels, 64)


def test_a_name_of_feature_info_that_does_not_exist() -> None:
    backbone = Stages()
    backbone.feature_info = [{"module": "five", "num_chs": 8, "reduction": 4}]
    assert "feature_info names module 'five'" in message(backbone, image_size=32)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("vit_tiny", 80, "cannot take images of 80x80"),
        ("swin_tiny", (60, 64), "cannot take images of 60x64"),
        ("resnet18", 0, "image_size 0x0 is not a size"),
    ],
)
def test_image_size_that_the_backbone_cannot_take(name: str, size: Any, expected: str) -> None:
    assert expected in message(traced(name)[0], image_size=size)


def test_an_error_without_a_text_still_names_the_size() -> None:
    class Picky(Stages):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] < 64:
                raise AssertionError
            return super().forward(x)

    assert "Picky cannot take images of 32x32: AssertionError" in message(Picky(), ["one"], 32)


def test_default_image_size_is_the_backbones_own() -> None:
    assert bt.trace_backbone(traced("deit_tiny")[0]).image_size == (48, 64)
    assert bt.trace_backbone(timm.create_model("test_resnet")).image_size == (160, 160)


def test_images_of_another_size_than_traced() -> None:
    model = bt.MultiTaskModel(
        traced("resnet18")[0], [bt.Depth("b")], adapter=bt.LoRA(r=2), spec=traced("resnet18")[1]
    ).eval()
    assert model(torch.zeros(2, 3, 96, 70))["b"].shape == (2, 1, 96, 70)
    vit = timm.create_model("vit_tiny_patch16_224", **CONTRACTS["vit_tiny"].reduced, dynamic_img_size=True)
    model = bt.MultiTaskModel(vit, [bt.Depth("b")], adapter=bt.LoRA(r=2), image_size=64).eval()
    assert model.backbone(torch.zeros(2, 3, 96, 32))["b"][0].shape == (2, 24, 6, 2)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("swin_tiny", bt.LoRA(r=2)),
        ("convnext_atto", bt.Bottleneck()),
        pytest.param("resnet18", bt.LoRA(r=2), marks=pytest.mark.slow),
        pytest.param("swin_tiny", bt.Bottleneck(), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_channels_last_autocast_and_bfloat16_agree_with_the_naive_twin(name: str, adapter: bt.Adapter) -> None:
    """In half precision folded and twin round differently: neither may be much further from float32 than the other."""
    model = randomise(grow(name, TREES["1124"], adapter), 0.1)
    images = CONTRACTS[name].images(2)
    bf16 = torch.autocast("cpu", torch.bfloat16)
    with torch.no_grad():
        exact = model(images)["b"]
        for run, batch in (
            (nullcontext(), images.to(memory_format=torch.channels_last)),
            (bf16, images),
            (nullcontext(), images.bfloat16()),
        ):
            model.to(batch.dtype).to(memory_format=torch.channels_last)
            twin = NaiveTwin(model, traced(name)[0])
            with run:
                found, expected = model(batch)["b"], twin(batch)["b"]
            assert found.dtype == expected.dtype
            error, twin_error = ((o.float() - exact).norm() / exact.norm() for o in (found, expected))
            assert error <= 1.5 * twin_error + 1e-5


def test_a_backbone_in_half_precision_is_traced_as_in_full() -> None:
    full, half = Stages(), Stages().bfloat16()
    assert bt.trace_backbone(half, ["one", "four"], 32) == bt.trace_backbone(full, ["one", "four"], 32)
