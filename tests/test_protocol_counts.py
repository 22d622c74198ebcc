"""The counts of the MTLoRA protocol (arXiv 2403.20320) on Swin-T at 448, four PASCAL tasks, features after merging."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from branchtune.backbone.extras import extra_parameters
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import tree_cost

NAMES = ("semseg", "human_parts", "sal", "normals")

#: GMACs of backbone, adapters and decoders for groups per stage and rank, with decoders counted as 4.01
TABLE = {
    (1, 1, 1, 1): {8: 22.7, 16: 23.4, 32: 24.9},
    (1, 1, 1, 2): {8: 25.5, 16: 26.3, 32: 27.9},
    (1, 1, 1, 4): {8: 31.2, 16: 32.1, 32: 33.8},
    (1, 1, 2, 2): {8: 34.5, 16: 35.5, 32: 37.5},
    (1, 1, 2, 3): {8: 37.3, 16: 38.4, 32: 40.5},
    (1, 1, 2, 4): {8: 40.2, 16: 41.3, 32: 43.4},
    (1, 2, 2, 4): {8: 43.5, 16: 44.7, 32: 47.2},
    (1, 2, 3, 4): {8: 52.4, 16: 53.9, 32: 56.8},
    (4, 4, 4, 4): {8: 78.6, 16: 81.5, 32: 87.4},
}


def tasks() -> list[bt.Task]:
    return [
        bt.SemanticSegmentation("semseg", num_classes=21),
        bt.HumanParts("human_parts"),
        bt.Saliency("sal"),
        bt.Normals("normals"),
    ]


@cache
def protocol() -> tuple[nn.Module, BackboneSpec]:
    backbone = timm.create_model("swin_tiny_patch4_window7_224", img_size=448, num_classes=0)
    return backbone, bt.trace_backbone(backbone, levels="after_merging")


def tree_of(counts: tuple[int, ...]) -> bt.TaskTree:
    """A nested tree with these numbers of groups."""
    cuts = {1: [NAMES], 2: [NAMES[:2], NAMES[2:]], 3: [NAMES[:2], NAMES[2:3], NAMES[3:]], 4: [[n] for n in NAMES]}
    return bt.TaskTree([cuts[count] for count in counts])


def decoder_macs(decoders: list[nn.Module], channels: list[int]) -> int:
    maps = [torch.zeros(1, c, s, s, device="meta") for c, s in zip(channels, (56, 28, 14, 14), strict=True)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for decoder in decoders:
            decoder.to("meta").eval()(maps, (448, 448))
    return counter.get_total_flops() // 2


def test_features_are_read_after_merging() -> None:
    features = [level.feature for level in protocol()[1].levels]
    assert [f.channels for f in features] == [192, 384, 768, 768]
    assert [(f.height, f.width) for f in features] == [(56, 56), (28, 28), (14, 14), (14, 14)]


def test_backbone_is_17_96_gmacs() -> None:
    assert abs(protocol()[1].macs / 1e9 - 17.96) < 0.01


def test_decoders_are_1_946_624_parameters_and_3_98_gmacs() -> None:
    channels = [level.feature.channels for level in protocol()[1].levels]
    decoders = [bt.HRNetDecoder().build(channels, task.out_channels) for task in tasks()]
    assert [task.out_channels for task in tasks()] == [21, 7, 1, 3]
    assert sum(p.numel() for decoder in decoders for p in decoder.parameters()) == 1_946_624
    assert abs(decoder_macs(decoders, channels) / 1e9 - 3.98) < 0.01


@pytest.mark.parametrize("counts", TABLE, ids=str)
def test_table_of_macs(counts: tuple[int, ...]) -> None:
    for rank, published in TABLE[counts].items():
        total = tree_cost(protocol()[1], tree_of(counts), bt.LoRA(r=rank)).macs / 1e9 + 3.98
        assert abs(total - (published - 4.01 + 3.98)) < 0.2


@pytest.mark.parametrize("counts", TABLE, ids=str)
def test_lora_parameters_follow_the_closed_form(counts: tuple[int, ...]) -> None:
    for rank in (8, 16, 32):
        expected = 16 * sum(
            g * rank * depth * width for g, depth, width in zip(counts, (2, 2, 6, 2), (96, 192, 384, 768), strict=True)
        )
        assert tree_cost(protocol()[1], tree_of(counts), bt.LoRA(r=rank)).parameters == expected


def test_sites_are_exactly_the_four_projections() -> None:
    names = {site.name.split(".", 4)[-1] for site in bt.LoRA().select_sites(protocol()[1])}
    assert names == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}


def test_bottlenecks_of_a_quarter_of_the_channels_are_2_167_584_parameters() -> None:
    shared = bt.TaskTree.shared(NAMES, 4)
    assert tree_cost(protocol()[1], shared, bt.Bottleneck(4)).parameters == 2_167_584


def test_trainable_parameters_of_the_published_model() -> None:
    backbone, spec = protocol()
    extras = ("norms", "patch_embed", "relative_position", "patch_merging")
    model = bt.MultiTaskModel(
        backbone, tasks(), tree_of((1, 1, 2, 4)), bt.LoRA(r=16), bt.HRNetDecoder(), extras=extras, spec=spec
    )
    counts = model.count_parameters()
    assert counts["decoders"] == 1_946_624
    assert counts["extras"] == 1_599_546
    assert counts["adapters"] == 16 * 16 * (2 * 96 + 2 * 192 + 2 * 6 * 384 + 4 * 2 * 768)
    by_extra = {
        extra: sum(backbone.get_parameter(name).numel() for name in extra_parameters(backbone, spec, [extra]))
        for extra in extras
    }
    assert by_extra == {
        "norms": 23_040,
        "patch_embed": 4_896,
        "relative_position": 23_322,
        "patch_merging": 1_548_288,
    }


@pytest.mark.slow
def test_built_model_counts_what_was_predicted() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backbone, spec = protocol()
    tree = tree_of((1, 1, 2, 4))
    model = bt.MultiTaskModel(backbone, tasks(), tree, bt.LoRA(r=16), bt.HRNetDecoder(), spec=spec).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 448, 448))
    channels = [level.feature.channels for level in spec.levels]
    decoders = decoder_macs([bt.HRNetDecoder().build(channels, t.out_channels) for t in tasks()], channels)
    assert counter.get_total_flops() // 2 == model.cost().macs + decoders
    assert abs(counter.get_total_flops() / 2e9 - 41.3) < 0.2
