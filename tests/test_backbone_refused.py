"""Backbones that cannot be folded are refused with the reason; odd ones that can be, work."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from branchtune import UserError
from contract_backbones import CONTRACTS, MaskedNet, relative_error

TREE = bt.TaskTree([[["b", "c"]], [["b"], ["c"]]])


class Sequence(nn.Module):
    """Tokens of patches, two blocks; subclasses change what happens between and inside the blocks."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.one, self.two = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def tokens(self, images: Tensor) -> Tensor:
        return self.patches(images).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(self.tokens(images))))


def refused(backbone: nn.Module, levels: Any = ("one", "two"), **options: Any) -> str:
    with pytest.raises(UserError) as error:
        bt.trace_backbone(backbone, list(levels), 32, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def grow(backbone: nn.Module, levels: Any = ("one", "two"), **options: Any) -> bt.MultiTaskModel:
    tasks = [bt.Depth("b"), bt.Depth("c")]
    model = bt.MultiTaskModel(
        backbone,
        tasks,
        TREE,
        bt.LoRA(r=2, target_modules=options.pop("target_modules", None)),
        bt.LightDecoder(8),
        levels=list(levels),
        image_size=32,
        **options,
    ).eval()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_a_module_that_subtracts_the_batch_mean_is_refused() -> None:
    class Centred(Sequence):
        def forward(self, images: Tensor) -> Tensor:
            x = self.one(self.tokens(images))
            return self.two(x - x.mean(dim=0))

    assert "mixes the images of a batch before 'two'" in refused(Centred())


def test_a_module_that_mixes_the_batch_in_its_very_last_step_is_refused() -> None:
    class Last(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y - y.mean(dim=0)

    backbone = Sequence()
    backbone.two = Last(8, 8)
    assert "mixes the images of a batch in 'two'" in refused(backbone)


def test_a_module_that_keeps_the_sequence_first_is_refused() -> None:
    class SequenceFirst(Sequence):
        def tokens(self, images: Tensor) -> Tensor:
            return super().tokens(images).transpose(0, 1)

    assert "'one'" in refused(SequenceFirst())
    assert "does not" in refused(SequenceFirst())


def test_layers_that_see_the_sequence_first_inside_a_level_are_dead() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    backbone = Sequence()
    backbone.one = Inside()
    spec = bt.trace_backbone(backbone, ["one", "two"], 32)
    assert "batch" in spec.dead["one.layer"]
    assert "two" in {site.name for site in spec.sites}


def test_a_backbone_without_any_site_is_refused() -> None:
    class Functional(Sequence):
        def forward(self, images: Tensor) -> Tensor:
            x = self.middle(self.tokens(images))
            return self.end(F.linear(x, self.one.weight))

        def __init__(self) -> None:
            super().__init__()
            self.middle, self.end = nn.Identity(), nn.Identity()

    assert "no layer that can carry an adapter" in refused(Functional(), ("middle", "end"))


def test_a_layer_whose_result_is_not_used_is_dead() -> None:
    class Unused(Sequence):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Tensor:
            x = self.one(self.tokens(images))
            self.idle(x)
            return self.two(x)

    spec = bt.trace_backbone(Unused(), ["one", "two"], 32)
    assert spec.dead["idle"] == "the features do not depend on it"


def test_layers_read_from_a_list_that_is_never_called_are_dead() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(8, 8)])
            self.own = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.own(F.linear(x, self.parts[0].weight))

    backbone = Sequence()
    backbone.one = Listed()
    assert "never called" in bt.trace_backbone(backbone, ["one", "two"], 32).dead["one.parts.0"]


def test_a_layer_that_two_levels_share_is_dead() -> None:
    class Tied(Sequence):
        def __init__(self) -> None:
            super().__init__()
            self.tied, self.end = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Tensor:
            return self.end(self.tied(self.two(self.tied(self.one(self.tokens(images))))))

    assert bt.trace_backbone(Tied(), ["one", "two:end"], 32).dead["tied"] == "runs in more than one level"


def test_levels_at_a_module_that_is_called_twice_are_refused() -> None:
    class Twice(Sequence):
        def forward(self, images: Tensor) -> Tensor:
            return self.two(self.one(self.one(self.tokens(images))))

    assert "'one' is called 2 times" in refused(Twice())


def test_levels_inside_windows_are_refused() -> None:
    class Windows(nn.Linear):
        pass

    class Windowed(Sequence):
        def forward(self, images: Tensor) -> Tensor:
            x = self.tokens(images)
            windows = self.one(x.reshape(-1, 4, x.shape[-1]))
            return self.two(windows.view_as(x))

    assert "does not have the batch as its first dimension" in refused(Windowed())


def test_a_backbone_that_reshapes_with_an_old_batch_size_is_refused_when_it_loses_the_branches() -> None:
    class Stale(Sequence):
        def forward(self, images: Tensor) -> Tensor:
            x = self.tokens(images)
            batch = len(x)
            x = self.hold(self.one(x))
            return self.two(self.end(x).reshape(batch, -1, 8))

        def __init__(self) -> None:
            super().__init__()
            self.hold, self.end = nn.Identity(), nn.Linear(8, 8)

    model = grow(Stale(), ("one", "hold:two"), target_modules=["one", "two"])
    with pytest.raises(UserError, match="lost the branches before the end of level 1"):
        model(torch.zeros(2, 3, 32, 32))


def test_a_layer_called_twice_inside_a_level_is_adapted_and_counted_twice() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.layer(x)))

    backbone = Sequence()
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
        assert relative_error(folded[task][-1], expected) < 1e-5
    assert not torch.allclose(folded["b"][-1], folded["c"][-1])


class KeywordBlock(nn.Module):
    """Called with keywords only, returns a tuple, calls its layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y = self.layer(input=hidden_states)
        return (y if mask is None else y * mask[:, :, None], mask)


class KeywordNet(Sequence):
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
    class Encoder(Sequence):
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


def test_example_inputs_for_more_than_one_image_are_refused() -> None:
    mask = CONTRACTS["masked_net"].inputs(2)["mask"]
    levels = CONTRACTS["masked_net"].levels
    with pytest.raises(UserError, match=r"example input 'mask' has shape \(2, 16\): give it for one image"):
        bt.trace_backbone(MaskedNet(16), levels, 64, {"mask": mask})


def test_channels_of_a_block_that_ends_with_a_permutation() -> None:
    backbone = timm.create_model("convnext_tiny", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), conv_mlp=False)
    axes = {s.name: s.channel_axis for s in bt.trace_backbone(backbone, image_size=96).sites if s.kind == "block"}
    assert axes["stages.0.blocks.0"] == 1
    assert axes["stages.0.blocks.0.mlp"] == -1
