from __future__ import annotations

from typing import Any

import pytest
import torch

from branchtune.data.collate import Collate
from branchtune.errors import UserError
from branchtune.tasks.classification import ImageClassification
from branchtune.tasks.depth import Depth
from branchtune.tasks.normals import Normals
from branchtune.tasks.regression import ImageRegression
from branchtune.tasks.semseg import SemanticSegmentation

H, W = 4, 6
TASKS = [
    SemanticSegmentation("semseg", num_classes=5),
    Depth("depth"),
    Normals("normals"),
    ImageClassification("room", num_classes=3),
    ImageRegression("count", num_outputs=2),
]


def sample(id_: str = "a", **changes: Any) -> dict[str, Any]:
    normals = torch.zeros(3, H, W)
    normals[2] = -1
    whole = {
        "id": id_,
        "image": torch.rand(3, H, W),
        "semseg": torch.randint(5, (H, W)),
        "depth": torch.rand(H, W) + 1,
        "normals": normals,
        "room": torch.tensor(2),
        "count": torch.tensor([1.0, 2.0]),
    }
    return {**whole, **changes}


def test_stacks_what_the_samples_hold():
    samples = [sample("a"), sample("b"), sample("c")]
    batch = Collate(TASKS)(samples)
    assert batch["id"] == ["a", "b", "c"]
    for key in ("image", "semseg", "depth", "normals", "room", "count"):
        assert torch.equal(batch[key], torch.stack([s[key] for s in samples]))


def test_one_sample_is_a_batch():
    assert Collate(TASKS)([sample()])["image"].shape == (1, 3, H, W)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("none", [True, False], ids=["None", "no key"])
def test_a_missing_label_is_ignored_as_a_whole(task: Any, none: bool):
    lacking = sample("b", **{task.name: None})
    if not none:
        del lacking[task.name]
    batch = Collate(TASKS)([sample("a"), lacking])
    assert task.labelled(batch[task.name]).tolist() == [True, False]
    batch = Collate(TASKS)([lacking])
    assert task.labelled(batch[task.name]).tolist() == [False]


def test_keys_that_name_no_task_are_dropped():
    assert set(Collate([])([sample(other=1)])) == {"id", "image"}


def test_numbers_and_double_precision_are_converted():
    batch = Collate(TASKS)([sample(room=1, count=[0.5, 1], depth=torch.ones(H, W, dtype=torch.float64))])
    assert batch["room"].tolist() == [1]
    assert batch["room"].dtype == torch.int64
    assert batch["depth"].dtype == batch["count"].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"semseg": torch.zeros(H, W)}, "sample 'bad', task 'semseg'.*float32.*int64"),
        ({"semseg": torch.zeros(1, H, W).long()}, r"sample 'bad', task 'semseg'.*\[1, 4, 6\]"),
        ({"depth": torch.ones(H, W + 1)}, r"sample 'bad', task 'depth'.*\[4, 7\].*\[4, 6\]"),
        ({"depth": torch.ones(H, W).int()}, "sample 'bad', task 'depth'.*int32"),
        ({"image": torch.rand(3, H + 1, W)}, r"sample 'bad': image size \[5, 6\] is not \[4, 6\]"),
        ({"image": torch.rand(1, H, W)}, r"sample 'bad': 'image' is float32 \[1, 4, 6\]"),
        ({"image": torch.zeros(3, H, W, dtype=torch.uint8)}, "sample 'bad': 'image' is uint8"),
        ({"image": None}, "sample 'bad': 'image' is a NoneType"),
    ],
)
def test_wrong_shapes_and_dtypes_name_sample_and_task(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Collate(TASKS, check=False)([sample("good"), sample("bad", **changes)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"semseg": torch.full((H, W), 7)}, "sample 'bad'.*'semseg'.*7"),
        ({"depth": torch.full((H, W), -2.0)}, "sample 'bad'.*'depth'.*-2"),
        ({"normals": torch.full((3, H, W), 0.1)}, "sample 'bad'.*'normals'.*0.17"),
        ({"room": torch.tensor(3)}, "sample 'bad'.*'room'.*3"),
    ],
)
def test_values_are_checked_on_request(changes: dict[str, Any], message: str):
    samples = [sample("good"), sample("bad", **changes)]
    with pytest.raises(UserError, match=message):
        Collate(TASKS)(samples)
    Collate(TASKS, check=False)(samples)


@pytest.mark.parametrize("id_", [None, 3])
def test_a_sample_needs_an_id(id_: object):
    with pytest.raises(UserError, match="needs an 'id'"):
        Collate(TASKS)([sample(id=id_)])


def test_an_empty_batch_is_refused():
    with pytest.raises(UserError, match="at least one sample"):
        Collate(TASKS)([])
