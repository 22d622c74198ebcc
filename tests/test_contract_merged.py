"""Over all contract backbones: a merged model answers as the unmerged one, and computes what it says it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from branchtune.backbone.clone import OwnHook
from contract_backbones import CONTRACTS, TASKS, TREES, grow, randomise, relative_error

LORA = bt.LoRA(r=2, lora_alpha=3)
HEAVY = ("swin_tiny", "swinv2_tiny", "pvt_v2_b0", "deit_tiny", "mobilenetv4_conv_small", "efficientnet_lite0")
FAST = ("vit_tiny",)


def built(name: str, tree: str, adapter: bt.Adapter = LORA, **options: Any) -> bt.MultiTaskModel:
    """A model with random adapters; layer scales, which start near zero and would hide a mistake, as after training."""
    contract = CONTRACTS[name]
    if name == "convnext_atto":
        backbone = contract.build()
        for key, parameter in backbone.named_parameters():
            if key.endswith("gamma"):
                nn.init.constant_(parameter, 0.5)
        options |= {"backbone": backbone, "spec": contract.trace(backbone)}
    return randomise(grow(name, TREES[tree], adapter, **options))


def merged(model: bt.MultiTaskModel, name: str, levels: Any = "all") -> bt.MergedModel:
    return model.merge(levels, example_inputs=CONTRACTS[name].inputs(1) or None)


def check_same(name: str, tree: str, levels: Any = "all", wanted: Sequence[str] = TASKS, **options: Any) -> None:
    contract, model = CONTRACTS[name], built(name, tree, **options).double()
    images, inputs = contract.images(2, torch.float64), contract.inputs(2)
    other = merged(model, name, levels)
    with torch.no_grad():
        expected = model(images, **inputs)
        for tasks in (TASKS, wanted):
            outputs = other(images, tasks=tasks, **inputs)
            assert list(outputs) == list(tasks)
            for task, output in outputs.items():
                assert relative_error(output, expected[task]) < 1e-10, task


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in CONTRACTS])
def test_merged_equals_unmerged_in_float64(name: str) -> None:
    check_same(name, "interleaved", wanted=["d", "c"], extras=("norms",))


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["1124", "from_level_0"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_merged_equals_unmerged_on_other_trees(name: str, tree: str) -> None:
    check_same(name, tree, wanted=["b"])


@pytest.mark.parametrize(("name", "levels"), [("swin_tiny_after_merging", [1, 3]), ("vit_tiny", [0, 2])])
def test_merged_and_live_levels_work_together(name: str, levels: list[int]) -> None:
    check_same(name, "from_level_0", levels, wanted=["a", "b"])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CONTRACTS])
def test_merged_equals_unmerged_in_float32(name: str) -> None:
    """To 1e-6, or where rounding alone moves the unmerged model further than that, no further than a few times that."""
    contract = CONTRACTS[name]
    model, exact = built(name, "interleaved"), built(name, "interleaved").double()
    other = merged(model, name)
    images, inputs = contract.images(2, torch.float64), contract.inputs(2)
    with torch.no_grad():
        truth = exact(images, **inputs)
        expected, found = (m(images.float(), **inputs) for m in (model, other))
    for task, output in found.items():
        rounding = relative_error(expected[task].double(), truth[task])
        assert relative_error(output, expected[task]) < max(1e-6, 5 * rounding), task


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CONTRACTS])
def test_predicted_cost_is_the_counted_one(name: str) -> None:
    contract, model = CONTRACTS[name], built(name, "interleaved")
    for levels in ("all", [0, 2]):
        other = merged(model, name, levels)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            other.backbone(contract.images(1), inputs=contract.inputs(1))
        assert 2 * other.cost().macs == counter.get_total_flops()
        saved = sum(choice.macs_saved for choice in other.choices)
        assert model.cost().macs - other.cost().macs == saved > 0


def own_hooks(module: nn.Module) -> list[Any]:
    hooks = [hook for m in module.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return [hook for hook in hooks if isinstance(hook, OwnHook)]


@pytest.mark.parametrize("name", ["resnet18", "masked_net"])
def test_only_forks_and_taps_are_left_where_everything_is_merged(name: str) -> None:
    other = merged(built(name, "1124"), name)
    levels = other.spec.levels
    hooks = own_hooks(other.backbone.frozen)
    assert {type(hook).__name__ for hook in hooks} <= {"Fork", "Tap", "FoldSideInputs"}
    per_group = [m for m in other.backbone.frozen.modules() if hasattr(m, "copies")]
    assert not [hook for m in per_group for copy in m.copies for hook in own_hooks(copy)]  # type: ignore[union-attr]
    assert len([hook for hook in hooks if type(hook).__name__ in ("Fork", "Tap")]) == 2 * len(levels)


def test_a_subset_of_tasks_computes_its_own_groups_alone() -> None:
    model = built("vit_tiny", "interleaved")
    other, images = merged(model, "vit_tiny"), CONTRACTS["vit_tiny"].images(2)
    for wanted in (["b"], ["a", "d"], ["c", "a", "b"]):
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            other.backbone(images, wanted)
        groups = model.tree.restrict(wanted).group_counts
        expected = model.spec.stem_macs + sum(g * lv.macs for g, lv in zip(groups, model.spec.levels, strict=True))
        assert counter.get_total_flops() == 2 * 2 * expected
