"""Mistakes around a model: one line that names the thing and the way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import branchtune as bt
from branchtune import UserError
from branchtune.errors import unknown
from contract_backbones import CONTRACTS, TASKS, four_tasks, grow, traced

LORA = bt.LoRA(r=2)


def build(tasks: Any = None, tree: Any = None, adapter: Any = LORA, **options: Any) -> bt.MultiTaskModel:
    backbone, spec = traced("vit_tiny")
    return bt.MultiTaskModel(backbone, tasks or four_tasks(), tree, adapter, spec=spec, **options)


def message_of(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unknown_names_the_nearest_and_lists_the_known() -> None:
    assert str(unknown("task", "dept", ["semseg", "depth"])) == (
        "unknown task 'dept': did you mean 'depth'? (known: depth, semseg)"
    )
    assert str(unknown("task", "x", [])) == "unknown task 'x' (known: none)"
    assert str(unknown("task", "zzz", [f"a{i:02}" for i in range(30)])).endswith("a19, ...)")


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize("levels", [3, 5])
def test_tree_of_another_number_of_levels_shows_the_levels(levels: int) -> None:
    with pytest.raises(UserError) as error:
        build(tree=bt.TaskTree.shared(TASKS, levels))
    text = message_of(error)
    assert f"the tree has {levels} levels" in text
    assert "level 3: blocks.3 -> 24 x 4 x 4" in text


def test_fork_without_adapter() -> None:
    with pytest.raises(UserError, match="a tree that forks needs an adapter"):
        build(tree=bt.TaskTree.separate(TASKS, 4), adapter=None)


def test_tree_names_a_task_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="unknown task in the tree 'dd'"):
        build(tree=bt.TaskTree.shared([*TASKS, "dd"], 4))


def test_tree_misses_a_task() -> None:
    with pytest.raises(UserError, match="the tree misses task 'd'"):
        build(tree=bt.TaskTree.shared(TASKS[:3], 4))


def test_two_tasks_of_one_name() -> None:
    with pytest.raises(UserError, match="two tasks are named 'b'"):
        build(tasks=[bt.Depth("b"), bt.Normals("b")])


def test_no_task_and_no_task_object() -> None:
    backbone, spec = traced("vit_tiny")
    with pytest.raises(UserError, match="no task"):
        bt.MultiTaskModel(backbone, [], spec=spec)
    with pytest.raises(UserError, match="'depth' is not a task"):
        bt.MultiTaskModel(backbone, ["depth"], spec=spec)  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["image", "id", "a.b", "", "a b", "a/b", "a+b"])
def test_task_names_that_a_sample_or_a_parameter_cannot_carry(name: str) -> None:
    with pytest.raises(UserError) as error:
        bt.Depth(name)
    assert repr(name) in message_of(error)


@pytest.mark.parametrize("name", ["values", "train", "type", "keys", "forward", "training", "_modules"])
def test_task_names_that_torch_uses(name: str) -> None:
    with pytest.raises(UserError, match=f"cannot be named '{name}'"):
        build(tasks=[bt.Depth(name)])


def test_unknown_task_asked_for() -> None:
    model, images = grow("vit_tiny", bt.TaskTree.shared(TASKS, 4), LORA), CONTRACTS["vit_tiny"].images(1)
    with pytest.raises(UserError, match="unknown task 'aa': did you mean 'a'"):
        model(images, tasks=["aa"])
    with pytest.raises(UserError, match=r"tasks='a' is a text: pass a list, tasks=\['a'\]"):
        model(images, tasks="a")
    with pytest.raises(UserError, match="no task asked for"):
        model(images, tasks=[])


def test_images_that_are_no_batch() -> None:
    model = grow("vit_tiny", bt.TaskTree.shared(TASKS, 4), LORA)
    with pytest.raises(UserError, match=r"images have shape \(3, 64, 64\)"):
        model(torch.zeros(3, 64, 64))


def test_unknown_or_missing_extra() -> None:
    with pytest.raises(UserError, match="unknown extra 'norm': did you mean 'norms'"):
        build(extras=("norm",))
    with pytest.raises(UserError, match="has no 'patch_merging' parameters"):
        build(extras=("patch_merging",))


def test_spec_of_another_backbone() -> None:
    with pytest.raises(UserError, match=r"no module 'blocks\.0"):
        bt.MultiTaskModel(traced("resnet18")[0], four_tasks(), spec=traced("vit_tiny")[1])


def test_gradient_checkpointing_would_lose_the_adapters() -> None:
    backbone = CONTRACTS["vit_tiny"].build()
    backbone.set_grad_checkpointing()
    with pytest.raises(UserError, match="gradient checkpointing switched on"):
        bt.MultiTaskModel(backbone, four_tasks(), adapter=LORA, image_size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nothing"]}, "unknown target module 'nothing'"),
        ({"target_modules": "nothing"}, "unknown target module 'nothing'"),
        ({"target_modules": ["fc9"]}, "did you mean"),
        ({"target_modules": "(fc1"}, "is not a regular expression"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": ["patch_embed.proj"]}, "runs before the first level"),
        ({"rank_pattern": {4: 2}}, "rank_pattern names level 4"),
    ],
)
def test_sites_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(adapter=bt.LoRA(**options))
    assert message in message_of(error)


def test_target_modules_that_match_only_dead_layers() -> None:
    backbone, spec = traced("swinv2_tiny")
    with pytest.raises(UserError, match=r"attn\.qkv' cannot carry an adapter: its module is never called"):
        bt.MultiTaskModel(backbone, four_tasks(), adapter=bt.LoRA(target_modules=["qkv"]), spec=spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "rank must be at least 1"),
        ({"rank_pattern": {0: 0}}, "rank must be at least 1"),
        ({"rank_pattern": {"early": 4}}, "rank_pattern"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 0.0}, "lora_alpha"),
    ],
)
def test_lora_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bt.LoRA(**options)


@pytest.mark.parametrize("options", [{"reduction": 0.5}, {"reduction": float("nan")}, {"activation": "tanh"}])
def test_bottleneck_settings_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        bt.Bottleneck(**options)
