"""Plain modules of unusual habits that can be folded: keywords, tuples, masks, layers called twice."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from contract_backbones import relative_error
from small_backbones import TREE, Tokens, grow


def test_a_layer_called_twice_inside_a_level_is_adapted_and_counted_twice() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.layer(x)))

    backbone = Tokens()
    backbone.two = Recurrent()
    model = grow(backbone, target_modules=["one", "layer"])
    check(model, backbone)
    assert [site.positions for site in model.backbone.sites.values()] == [16, 32]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.backbone(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * model.cost().macs


def twin_of(model: bt.MultiTaskModel, backbone: nn.Module, images: Tensor, **inputs: Any) -> dict[str, Tensor]:
    """The last features of each task, from one-task models that share the tree's parameters."""
    outputs = {}
    for task in model.tasks:
        single = bt.MultiTaskModel(
            backbone, [model.tasks[task]], adapter=model.adapter, decoder=bt.LightDecoder(8), spec=model.spec
        ).eval()
        for level, index in enumerate(model.tree.path(task)):
            own = single.backbone.node_adapters(level, 0)
            own.load_state_dict(model.backbone.node_adapters(level, index).state_dict())
        outputs[task] = single.backbone(images, [task], inputs)[task][-1]
    return outputs


def check(model: bt.MultiTaskModel, backbone: nn.Module, **inputs: Any) -> None:
    images = torch.randn(2, 3, 32, 32)
    folded = model.backbone(images, inputs=inputs)
    for task, expected in twin_of(model, backbone, images, **inputs).items():
        assert relative_error(folded[task][-1], expected) < 1e-4
    assert not torch.allclose(folded["b"][-1], folded["c"][-1])


class KeywordBlock(nn.Module):
    """Called with keywords only, returns a tuple, calls its layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y = self.layer(input=hidden_states)
        return (y if mask is None else y * mask[:, :, None], mask)


class KeywordNet(Tokens):
    def __init__(self, carry: bool = False) -> None:
        super().__init__()
        self.one, self.two, self.carry = KeywordBlock(), KeywordBlock(), carry

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        x, carried = self.one(hidden_states=self.tokens(images), mask=mask)
        return self.two(hidden_states=x, mask=carried if self.carry else mask)[0]


def test_blocks_called_with_keywords_that_return_tuples() -> None:
    backbone = KeywordNet()
    check(grow(backbone, target_modules=["layer"]), backbone)


@pytest.mark.parametrize("carry", [False, True], ids=["from_the_top", "handed_on_by_a_block"])
def test_masks_as_keywords_are_folded(carry: bool) -> None:
    backbone = KeywordNet(carry)
    mask = torch.rand(2, 16)
    model = grow(backbone, target_modules=["layer"], example_inputs={"mask": torch.ones(1, 16)})
    check(model, backbone, mask=mask)
    check(model, backbone)


def test_bottleneck_on_blocks_that_return_tuples() -> None:
    model = bt.MultiTaskModel(
        KeywordNet(),
        [bt.Depth("b"), bt.Depth("c")],
        TREE,
        bt.Bottleneck(target_modules=["one", "two"]),
        bt.LightDecoder(8),
        levels=["one", "two"],
        image_size=32,
    ).eval()
    before = model.backbone(torch.ones(1, 3, 32, 32))["c"][-1]
    nn.init.ones_(model.backbone.node_adapters(1, 1)["two"].up_bias)
    after = model.backbone(torch.ones(1, 3, 32, 32))
    assert torch.allclose(after["c"][-1], before + 1)
    assert torch.equal(after["b"][-1], before)


def test_torch_transformer_layers_with_a_padding_mask() -> None:
    class Encoder(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))

        def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
            x = self.one(self.tokens(images), src_key_padding_mask=mask)
            return self.two(x, src_key_padding_mask=mask)

    backbone = Encoder().eval()
    example = {"mask": torch.zeros(1, 16, dtype=torch.bool)}
    model = grow(backbone, target_modules=["linear1", "linear2"], example_inputs=example)
    assert "never called" in model.spec.dead["one.self_attn.out_proj"]
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3:6], mask[1, 9:] = True, True
    with torch.no_grad():
        check(model, backbone, mask=mask)
    check(model, backbone, mask=mask)


def test_channels_of_a_block_that_ends_with_a_permutation() -> None:
    backbone = timm.create_model("convnext_tiny", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), conv_mlp=False)
    axes = {s.name: s.channel_axis for s in bt.trace_backbone(backbone, image_size=96).sites if s.kind == "block"}
    assert axes["stages.0.blocks.0"] == 1
    assert axes["stages.0.blocks.0.mlp"] == -1
