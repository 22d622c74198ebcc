"""Which targets a task accepts, which it refuses with what message, and what a missing one looks like."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.tasks.classification import ImageClassification
from branchtune.tasks.depth import Depth
from branchtune.tasks.edges import Edges
from branchtune.tasks.normals import Normals
from branchtune.tasks.parts import HumanParts
from branchtune.tasks.regression import ImageRegression
from branchtune.tasks.saliency import Saliency
from branchtune.tasks.semseg import SemanticSegmentation
from branchtune.tasks.task import Task

NAN = float("nan")
H, W = 2, 3
TASKS = [
    SemanticSegmentation("semseg", 40),
    HumanParts("parts"),
    Saliency("saliency"),
    Normals("normals"),
    Depth("depth"),
    Edges("edge"),
    ImageClassification("scene", 5),
    ImageRegression("pose", 2),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def target_of(task: Task) -> Tensor:
    if task.target_kind == "classes":
        return torch.ones(H, W, dtype=torch.int64)
    if task.target_kind == "normals":
        return torch.tensor([0.6, 0.0, -0.8])[:, None, None].expand(3, H, W).clone()
    if task.target_kind == "image":
        return torch.tensor(4) if task.image_target == "class" else torch.tensor([3.0, -7.5])
    return torch.full((H, W), 0.5)


@every_task
def test_a_real_and_a_missing_target_are_valid_and_stack(task: Task) -> None:
    real, missing = target_of(task), task.missing_target(H, W)
    task.check_target(real, H, W)
    task.check_target(missing, H, W)
    assert missing.shape == real.shape
    assert missing.dtype == real.dtype
    assert task.labelled(torch.stack([real, missing, real])).tolist() == [True, False, True]


@pytest.mark.parametrize("task", [task for task in TASKS if task.dense], ids=lambda task: task.name)
def test_one_labelled_pixel_is_enough(task: Task) -> None:
    target = task.missing_target(H, W)
    target[..., 1, 2] = target_of(task)[..., 1, 2]
    task.check_target(target, H, W)
    assert task.labelled(target[None]).tolist() == [True]


def test_one_labelled_number_is_enough() -> None:
    assert ImageRegression("pose", 2).labelled(torch.tensor([[NAN, 1.0], [NAN, NAN]])).tolist() == [
        True,
        False,
    ]


@every_task
def test_wrong_shape_names_both_shapes(task: Task) -> None:
    target = target_of(task)[None]
    with pytest.raises(UserError, match=rf"{task.name}.*shape \(1,.*expected \("):
        task.check_target(target, H, W)


@every_task
def test_wrong_type_names_the_right_one(task: Task) -> None:
    target = target_of(task)
    other, expected = (target.int(), "torch.float32") if target.is_floating_point() else (target.int(), "torch.int64")
    with pytest.raises(UserError, match=rf"{task.name}.*torch.int32, expected {expected}"):
        task.check_target(other, H, W)
    with pytest.raises(UserError, match=f"{task.name}.*ndarray, expected a torch tensor"):
        task.check_target(target.numpy(), H, W)  # type: ignore[arg-type]


BAD_VALUES = [
    (SemanticSegmentation("semseg", 40), 40, r"holds 40 at \[1, 2\]: a class is 0..39, or 255"),
    (HumanParts("parts"), -1, r"holds -1 at \[1, 2\]: a class is 0..6, or 255"),
    (Saliency("saliency"), 1.5, r"holds 1.5 at \[1, 2\]: .* in \[0, 1\], or NaN"),
    (Edges("edge"), 255.0, r"holds 255 at \[1, 2\]: .* in \[0, 1\], or NaN"),
    (Edges("edge"), float("inf"), "holds inf"),
    (Depth("depth"), 0.0, r"holds 0 at \[1, 2\]: a depth is in metres, above 0 and below 1000, or NaN"),
    (Depth("depth"), -1.0, "holds -1"),
    (Depth("depth"), 4000.0, "holds 4000"),
    (Depth("depth"), float("inf"), "holds inf"),
    (Normals("normals"), 255.0, r"holds 255 at \[0, 1, 2\]: .* in \[-1, 1\]"),
    (Normals("normals"), 0.0, r"holds 0 at \[1, 2\]: this is the length of a normal"),
    (ImageClassification("scene", 5), 5, "holds 5: a class is 0..4, or -100"),
    (ImageClassification("scene", 5), 255, "holds 255: "),
    (ImageRegression("pose", 2), float("inf"), r"holds inf at \[0\]: a value is finite, or NaN"),
]


@pytest.mark.parametrize("beside", ["labels", "ignored"])
@pytest.mark.parametrize(("task", "value", "message"), BAD_VALUES, ids=lambda x: str(x)[:12])
def test_a_value_out_of_range_is_named(task: Task, value: float, message: str, beside: str) -> None:
    target = target_of(task)
    if task.dense:
        if beside == "ignored":
            target[..., 0] = task.missing_target(H, W)[..., 0]
        target[..., 1, 2] = value
    else:
        target.fill_(value)
    with pytest.raises(UserError, match=f"{task.name}.*{message}") as error:
        task.check_target(target, H, W)
    assert "\n" not in str(error.value)


LIMITS = [
    (SemanticSegmentation("semseg", 40), (0, 39), (-1, 40)),
    (Saliency("saliency"), (0.0, 1.0), (-1e-6, 1 + 1e-6)),
    (Depth("depth"), (1e-6, 999.9), (0.0, 1000.0)),
    (Normals("normals"), (0.992, 1.008), (0.988, 1.012)),  # lengths: one component, the others are zero
]


@pytest.mark.parametrize(("task", "inside", "outside"), LIMITS, ids=lambda x: str(x)[:12])
def test_limits_belong_to_the_range(task: Task, inside: tuple[float, float], outside: tuple[float, float]) -> None:
    target = target_of(task)
    for value, valid in ((inside[0], True), (inside[1], True), (outside[0], False), (outside[1], False)):
        target[..., 1, 2] = 0
        target[(*(0,) * (target.ndim - 2), 1, 2)] = value
        if valid:
            task.check_target(target, H, W)
        else:
            with pytest.raises(UserError, match=task.name):
                task.check_target(target, H, W)


def test_a_normal_is_unknown_in_all_channels_or_in_none() -> None:
    target = target_of(Normals("normals"))
    target[1, 0, 2] = NAN
    with pytest.raises(UserError, match=r"the normal at \[0, 2\] is NaN in some channels only"):
        Normals("normals").check_target(target, H, W)


def test_a_normal_of_stored_precision_is_accepted() -> None:
    target = target_of(Normals("normals"))
    eight_bit = ((target + 1) * 255 / 2).round() * 2 / 255 - 1
    Normals("normals").check_target(eight_bit, H, W)


@pytest.mark.parametrize("num_classes", [0, 1, 256])
def test_number_of_classes(num_classes: int) -> None:
    with pytest.raises(UserError, match=f"'semseg': num_classes must be from 2 to 255, got {num_classes}"):
        SemanticSegmentation("semseg", num_classes)


def test_other_arguments_out_of_range() -> None:
    with pytest.raises(UserError, match="'scene': num_classes must be at least 2, got 1"):
        ImageClassification("scene", 1)
    with pytest.raises(UserError, match=r"'edge': positive_weight must be between 0 and 1, got 1.0"):
        Edges("edge", positive_weight=1.0)
    with pytest.raises(UserError, match="'pose': out_channels must be at least 1, got 0"):
        ImageRegression("pose", num_outputs=0)
    with pytest.raises(UserError, match="'depth': weight must be a finite number >= 0, got nan"):
        Depth("depth", weight=NAN)


@pytest.mark.parametrize("name", ["image", "id", "", "a.b", "a b", "tiefe/größe"])
def test_names_that_a_task_cannot_have(name: str) -> None:
    with pytest.raises(UserError, match="task"):
        Depth(name)


def test_default_weights() -> None:
    weights = {task.name: task.weight for task in TASKS}
    dense = {"semseg": 1, "parts": 2, "saliency": 5, "normals": 10, "depth": 1, "edge": 50}
    assert weights == dense | {"scene": 1, "pose": 1}


@every_task
def test_the_headline_is_one_of_the_metrics_and_points_the_same_way(task: Task) -> None:
    headline = task.metrics()[task.headline]
    assert headline.higher_is_better is task.higher_is_better
    assert task.metrics()[task.headline] is not headline


def test_what_does_not_need_torch_does_not_import_it() -> None:
    modules = "branchtune.tasks.task, branchtune.evaluation.delta_m, branchtune.evaluation.references"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
