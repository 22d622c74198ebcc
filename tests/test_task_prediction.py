"""What tasks predict, and pictures of it: of every kind, and of a user's own tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import branchtune as bt
from branchtune.errors import UserError
from branchtune.pictures.colour import class_colours, picture
from branchtune.run.inference import ImageOutput


class Height(bt.Task):
    """Values without bounds; at the bottom of it everything is negative."""

    target_kind, headline, higher_is_better = "values", "mae", False

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).abs().mean()

    def metrics(self) -> dict[str, Any]:
        return {}


class Shadow(Height):
    """A user's own binary map, whose decoder gives logits."""

    value_range = (0.0, 1.0)

    def prediction(self, output: Tensor) -> Tensor:
        return output[:, 0].sigmoid()


class Classes(Height):
    target_kind = "classes"


def test_predictions_by_kind() -> None:
    maps = torch.randn(2, 3, 4, 5)
    classes = bt.SemanticSegmentation("s", num_classes=3).prediction(maps)
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long(), maps.argmax(1))
    depth = bt.Depth("d").prediction(maps[:, :1])
    assert torch.equal(depth, maps[:, 0])
    assert torch.equal(bt.Normals("n").prediction(maps), maps)
    for task in (bt.Edges("e"), bt.Saliency("a")):
        torch.testing.assert_close(task.prediction(maps[:, :1].half()), maps[:, 0].half().float().sigmoid())
    images = torch.randn(2, 3)
    torch.testing.assert_close(bt.ImageClassification("c", 3).prediction(images), images.softmax(1))
    assert torch.equal(bt.ImageRegression("r", 3).prediction(images), images)
    assert Height("h", 1).prediction(maps[:, :1]).shape == (2, 4, 5)
    assert Height("h", 3).prediction(maps).shape == (2, 3, 4, 5)


@pytest.mark.parametrize(("count", "dtype"), [(256, torch.uint8), (257, torch.uint16)])
def test_the_smallest_type_that_holds_all_classes(count: int, dtype: torch.dtype) -> None:
    scores = torch.zeros(1, count, 1, 1)
    scores[:, -1] = 1
    found = Classes("c", count).prediction(scores)
    assert found.dtype == dtype
    assert found.numpy().item() == count - 1
    output = ImageOutput(Classes("c", count), scores[0], (2, 3)).prediction()
    assert output.dtype == dtype
    assert picture(Classes("c", count), output).shape == (2, 3, 3)


def grey(task: bt.Task, values: list[float]) -> list[int]:
    pixels = picture(task, torch.tensor([values]))
    assert pixels.shape == (1, len(values), 3)
    assert (pixels == pixels[..., :1]).all()
    return [int(value) for value in pixels[0, :, 0]]


def test_values_without_bounds_are_shown_between_smallest_and_largest() -> None:
    assert grey(Height("h", 1), [-100.0, -50.0, 0.0]) == [0, 127, 255]
    assert grey(Height("h", 1), [0.25, 0.5, 0.75]) == [0, 127, 255]
    assert grey(Height("h", 1), [float("nan"), 2.0, 4.0, float("inf"), -float("inf")]) == [89, 0, 255, 255, 0]
    assert grey(Height("h", 1), [float("nan")]) == [89]
    assert grey(bt.Depth("d"), [1.0, 2.0, 3.0]) == [255, 127, 0]


def test_values_of_several_channels_are_shown_by_their_mean() -> None:
    both = torch.tensor([[[0.0, 4.0]], [[0.0, 8.0]]])
    assert picture(Height("h", 2), both)[0, :, 0].tolist() == [0, 255]


def test_probabilities_are_shown_from_0_to_1() -> None:
    for task in (bt.Edges("e"), bt.Saliency("s"), Shadow("own", 1)):
        assert grey(task, [0.4, 0.6]) == [102, 153]


def test_pictures_of_large_maps_are_made_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    classes, normals = torch.randint(9, (50, 7), dtype=torch.uint8), torch.randn(3, 50, 7)
    tasks = (bt.SemanticSegmentation("s", 9), bt.Normals("n"), Height("h", 1))
    whole = [picture(task, found) for task, found in zip(tasks, (classes, normals, normals[0]), strict=True)]
    np.testing.assert_array_equal(whole[0], class_colours(9)[classes.numpy()])
    monkeypatch.setattr("branchtune.pictures.colour._BAND", 30)
    for task, found, expected in zip(tasks, (classes, normals, normals[0]), whole, strict=True):
        np.testing.assert_array_equal(picture(task, found), expected)


class Wrong(Height):
    def prediction(self, output: Tensor) -> Tensor:
        return output.mean(dim=(2, 3))


class Probabilities(Classes):
    def prediction(self, output: Tensor) -> Tensor:
        return output.softmax(1)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Wrong("own", 2), r"task 'own': its prediction\(\) returned float32 \[1, 2\], expected numbers \[1, 6, 8\]"),
        (Probabilities("own", 2), r"returned float32 \[1, 2, 6, 8\], expected integers \[1, 6, 8\]"),
    ],
)
def test_a_prediction_of_another_shape_is_refused(task: bt.Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageOutput(task, torch.zeros(2, 3, 4), (6, 8)).prediction()
