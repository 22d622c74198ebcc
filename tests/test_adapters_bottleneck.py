"""The bottleneck adapter: identity at the start, its formula, its count and where it attaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import branchtune as bt
from contract_backbones import CONTRACTS, TASKS, grow, relative_error, traced

SHARED = bt.TaskTree.shared(TASKS, 4)


def test_zero_up_projection_is_the_identity() -> None:
    images = CONTRACTS["swin_tiny"].images(2)
    adapted = grow("swin_tiny", SHARED, bt.Bottleneck())
    for node in adapted.tree.nodes():
        for layer in adapted.backbone.node_adapters(node.level, node.index).values():
            assert layer.up.abs().max() == layer.up_bias.abs().max() == layer.down_bias.abs().max() == 0
            assert layer.down.abs().max() > 0
    plain = grow("swin_tiny", SHARED, None)
    for found, expected in zip(adapted.backbone(images)["a"], plain.backbone(images)["a"], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
@pytest.mark.parametrize(("name", "site"), [("vit_tiny", "blocks.3"), ("resnet18", "layer4.0")])
def test_formula_with_its_non_linearity(name: str, site: str, activation: str) -> None:
    model = grow(name, SHARED, bt.Bottleneck(3, activation, [site])).double()  # type: ignore[arg-type]
    images = CONTRACTS[name].images(2, torch.float64)
    h = model.backbone(images)["a"][-1]
    layer = model.backbone.node_adapters(3, 0)[site.replace(".", "/")]
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = h.movedim(1, -1)
    hidden = getattr(F, activation)(x @ layer.down.T + layer.down_bias)
    expected = x + hidden @ layer.up.T + layer.up_bias
    assert relative_error(model.backbone(images)["a"][-1], expected.movedim(-1, 1)) < 1e-10


def test_attaches_after_attention_and_mlp_of_every_block() -> None:
    names = [site.name for site in bt.Bottleneck().select_sites(traced("swin_tiny")[1])]
    assert len(names) == 12
    assert {name.rpartition(".")[2] for name in names} == {"attn", "mlp"}


def test_attaches_after_residual_blocks_where_there_is_no_attention() -> None:
    names = [site.name for site in bt.Bottleneck().select_sites(traced("resnet18")[1])]
    assert names == ["layer1.0", "layer2.0", "layer3.0", "layer3.1", "layer4.0"]


def test_width_is_channels_by_reduction_and_at_least_one() -> None:
    site = bt.Bottleneck().select_sites(traced("vit_tiny")[1])[0]
    assert [bt.Bottleneck(r).width(site) for r in (1, 4, 5, 1000)] == [24, 6, 4, 1]


def test_unknown_block_names_the_nearest() -> None:
    with pytest.raises(bt.UserError, match="unknown target module 'atn': did you mean 'attn'"):
        grow("vit_tiny", SHARED, bt.Bottleneck(target_modules=["atn"]))
