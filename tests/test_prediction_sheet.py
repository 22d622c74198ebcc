"""The sheet of an image: its size, what it shows and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import branchtune as bt
from branchtune.pictures.prediction_sheet import SIDE, Tile, prediction_sheet, small, tile_of


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4000, 5000), (320, 400)), ((5000, 1000), (400, 80)), ((8, 8), (400, 400)), ((1, 9), (44, 400))],
)
def test_tiles_of_any_image_are_of_one_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert small(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)


def test_a_sheet_of_a_large_image_and_many_tasks_is_small() -> None:
    image = small(np.random.default_rng(0).integers(256, size=(3000, 4000, 3), dtype=np.uint8))
    sheet = prediction_sheet(image, [Tile(f"task {i}", image) for i in range(8)], "beside")
    assert sheet.shape[0] == 2 * (300 + 24 + 8) + 8
    assert sheet.shape[1] == 5 * (SIDE + 8) + 8


def shown(task: bt.Task, prediction: torch.Tensor, layout: str) -> np.ndarray:
    """The tile of a task beside that of a white image of 40 x 40 pixels."""
    image = small(np.full((40, 40, 3), 255, np.uint8))
    sheet = prediction_sheet(image, [tile_of(task, prediction)], layout)  # type: ignore[arg-type]
    assert sheet.shape == (400 + 24 + 16, 2 * 408 + 8, 3)
    assert (sheet[32:432, 8:408] == 255).all()
    assert (sheet[:32, 8:100] < 128).any()  # the title
    return sheet[32:432, 416:816]


def test_classes_are_blended_over_the_image_or_beside_it() -> None:
    classes = torch.ones(40, 40, dtype=torch.uint8)
    beside = shown(bt.SemanticSegmentation("s", num_classes=3), classes, "beside").astype(float)
    over = shown(bt.SemanticSegmentation("s", num_classes=3), classes, "overlay")
    np.testing.assert_allclose(over, 0.6 * beside + 0.4 * 255, atol=0.51)


def test_values_tint_the_image_where_they_are_high() -> None:
    values = torch.zeros(40, 40)
    values[:, 20:] = 1.0
    over = shown(bt.Edges("e"), values, "overlay")
    assert (over[:, :190] == 255).all()
    assert (over[:, 210:] == (255, 96, 0)).all()


def test_depth_stays_as_it_is() -> None:
    depth = torch.linspace(1, 5, 40).expand(40, 40)
    assert (shown(bt.Depth("d"), depth, "overlay") == shown(bt.Depth("d"), depth, "beside")).all()


def test_a_task_without_a_map_is_a_text() -> None:
    tile = tile_of(bt.ImageClassification("scene", 3), torch.tensor([0.005, 0.99, 0.005]))
    assert (tile.title, tile.picture) == ("scene", "class 1, 99%")
    image = small(np.zeros((40, 40, 3), np.uint8))
    assert (prediction_sheet(image, [tile], "overlay")[40:60, 416:500] < 128).any()
