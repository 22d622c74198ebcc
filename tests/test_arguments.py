"""Arguments of another type than expected: one line that names the argument and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import branchtune as bt
from contract_backbones import TASKS, four_tasks, traced

BACKBONE, SPEC = traced("vit_tiny")
AFFINITY = bt.Affinity.from_matrix(["a", "b"], [[1.0, 0.5], [0.5, 1.0]], SPEC)


def model(**options: Any) -> bt.MultiTaskModel:
    return bt.MultiTaskModel(**{"backbone": BACKBONE, "tasks": four_tasks(), "spec": SPEC, **options})


def traced_with(**options: Any) -> Any:
    return bt.trace_backbone(**{"backbone": BACKBONE, "image_size": 64, **options})


def planned(**options: Any) -> bt.TaskTree:
    return bt.plan(AFFINITY, **options)


LoRA: Any = bt.LoRA
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: model(tasks=None), r"tasks=None: pass a list of tasks, such as \[Depth\('depth'\)\]"),
    (lambda: model(tasks="depth"), "tasks='depth': pass a list of tasks"),
    (lambda: model(tasks=[bt.Depth]), "is not a task: pass instances"),
    (lambda: model(tree=[]), "a tree needs at least one level"),
    (lambda: model(tree="shared"), "a tree is a list of levels"),
    (lambda: model(adapter="lora"), r"adapter='lora' is of type str: pass an instance, such as LoRA\(r=8\)"),
    (lambda: model(adapter=bt.LoRA), r"adapter=LoRA is a class: pass an instance, such as LoRA\(r=8\)"),
    (lambda: model(decoder=bt.LightDecoder), "decoder=LightDecoder is a class: pass an instance"),
    (
        lambda: model(backbone="resnet18"),
        r"backbone='resnet18' is a text: pass a module, .*create_backbone\('resnet18'\)",
    ),
    (lambda: model(backbone=None), "backbone is of type NoneType: pass a module"),
    (lambda: model(extras="norms"), r"extras='norms': pass a list, such as extras=\['norms'\]"),
    (lambda: model(extras=None), "extras=None: pass a list"),
    (lambda: traced_with(backbone="resnet18"), "backbone='resnet18' is a text"),
    (lambda: traced_with(levels=4), "levels=4: use 'natural', 'after_merging' or a list of module names"),
    (lambda: traced_with(levels=[1, 2]), r"levels=\[1, 2\]: use 'natural'"),
    (lambda: traced_with(image_size="32"), "image_size='32' is not a size: give one whole number, or"),
    (lambda: traced_with(image_size=(32,)), r"image_size=\(32,\) is not a size"),
    (lambda: traced_with(image_size=32.5), "image_size=32.5 is not a size"),
    (lambda: traced_with(image_size=(32, "32")), "image_size=.* is not a size"),
    (lambda: LoRA(r="4"), "LoRA r must be a whole number, got '4'"),
    (lambda: LoRA(r=2.5), "LoRA r must be a whole number, got 2.5"),
    (lambda: LoRA(r=True), "LoRA r must be a whole number, got True"),
    (lambda: LoRA(rank_pattern=[1]), r"rank_pattern maps level numbers to ranks, such as {2: 16}, got \[1\]"),
    (lambda: LoRA(rank_pattern={0: "4"}), "rank_pattern: a rank must be a whole number, got '4'"),
    (lambda: LoRA(lora_alpha="16"), "lora_alpha must be a number, got '16'"),
    (lambda: LoRA(lora_dropout=None), "lora_dropout must be a number, got None"),
    (lambda: LoRA(target_modules=[1]), r"target_modules=\[1\]: pass a regular expression, or a list of module names"),
    (lambda: bt.Bottleneck(reduction="4"), "bottleneck reduction must be a number, got '4'"),  # type: ignore[arg-type]
    (lambda: bt.Bottleneck(target_modules=3), "target_modules=3: pass"),  # type: ignore[arg-type]
    (lambda: bt.LightDecoder(dim="64"), "LightDecoder dim must be a whole number, got '64'"),  # type: ignore[arg-type]
    (lambda: bt.HRNetDecoder(widths=18), "HRNetDecoder widths=18: give one number for each level"),  # type: ignore[arg-type]
    (lambda: bt.HRNetDecoder(widths=(0, 1)), "must be at least 1"),  # type: ignore[arg-type]
    (lambda: bt.Depth("d", weight="2"), "task 'd': weight must be a number, got '2'"),  # type: ignore[arg-type]
    (lambda: bt.SemanticSegmentation("s", num_classes="3"), "task 's': num_classes must be a whole number, got '3'"),  # type: ignore[arg-type]
    (lambda: bt.HumanParts("s", num_classes=3.0), "num_classes must be a whole number, got 3.0"),  # type: ignore[arg-type]
    (lambda: bt.ImageClassification("s", num_classes="3"), "num_classes must be a whole number"),  # type: ignore[arg-type]
    (lambda: bt.ImageRegression("s", num_outputs=1.5), "num_outputs must be a whole number"),  # type: ignore[arg-type]
    (lambda: bt.Edges("e", positive_weight="x"), "positive_weight must be a number"),  # type: ignore[arg-type]
    (lambda: planned(budget="1.6"), "budget must be a number, got '1.6'"),
    (lambda: planned(groups=4), r"groups=4: give one number for each level, such as groups=\(1, 1, 2, 4\)"),
    (lambda: planned(groups="1122"), "groups='1122': give one number"),
    (lambda: planned(budget_params=float("inf")), "budget_params=inf: give a number of parameters"),
    (lambda: planned(budget_params=float("nan")), "budget_params=nan: give a number of parameters"),
    (lambda: planned(budget_params="x"), "budget_params must be a number, got 'x'"),
    (lambda: planned(budget=2, adapter=bt.LoRA), "adapter=LoRA is a class"),
    (
        lambda: bt.plan("affinity.json", groups=(1, 1, 1, 1)),
        r"plan takes an Affinity, got 'affinity.json': .*Affinity.load",
    ),  # type: ignore[arg-type]
    (lambda: bt.MultiTaskModel.from_pretrained(None), "a model's folder is a path, got None"),  # type: ignore[arg-type]
    (lambda: bt.measure_affinity("resnet18", four_tasks(), []), "backbone='resnet18' is a text"),  # type: ignore[arg-type]
    (lambda: bt.measure_affinity(BACKBONE, four_tasks(), [], samples="8"), "samples must be a whole number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_an_argument_of_another_type(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(bt.UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_and_torch_and_nested_lists_are_taken() -> None:
    assert bt.LoRA(r=np.int64(4)) == bt.LoRA(r=4)
    assert type(bt.LoRA(r=np.int64(4)).r) is int
    assert bt.plan(AFFINITY, groups=np.array([1, 1, 2, 2])).group_counts == (1, 1, 2, 2)
    assert bt.plan(AFFINITY, groups=torch.tensor([1, 1, 1, 2])).group_counts == (1, 1, 1, 2)  # type: ignore[arg-type]
    assert model(tree=[[TASKS]] * 4).tree == bt.TaskTree.shared(TASKS, 4)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1.1, -2.0])
def test_an_affinity_is_a_similarity(value: float) -> None:
    matrix = [[1.0, value], [value, 1.0]]
    with pytest.raises(bt.UserError, match=r"not finite|between -1 and 1"):
        bt.Affinity.from_matrix(["a", "b"], matrix, SPEC)
    with pytest.raises(bt.UserError, match="per_level"):
        bt.Affinity.from_matrix(["a", "b"], np.eye(2), SPEC, [np.eye(2)] * 3 + [matrix])
