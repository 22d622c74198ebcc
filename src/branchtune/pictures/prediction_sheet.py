"""One picture of everything that a model predicts for an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from branchtune.pictures.colour import picture
from branchtune.tasks.task import TargetKind, Task

Layout = Literal["overlay", "beside"]
Picture = NDArray[np.uint8]

SIDE = 400  # pixels of a tile's longer side: sheets of any image are of one size
_COLUMNS = 5
_GAP, _TITLE, _FONT = 8, 24, 15
_LEAST_WIDTH = 160  # so that titles of upright images are readable
_OPACITY = 0.6
_PAPER, _INK, _TINT = (255, 255, 255), (34, 34, 34), (255, 96, 0)


@dataclass(frozen=True)
class Tile:
    """One task on the sheet.

    Attributes:
        title: above it.
        picture: `[h, w, 3]` of the size of `small`, or the text of a task that predicts no map.
        kind: of what the picture shows.
    """

    title: str
    picture: Picture | str
    kind: TargetKind = "image"


def small(image: Picture) -> Picture:
    """`[H, W, 3]` -> `[h, w, 3]` whose longer side is `SIDE` pixels, also where it was shorter."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def tile_of(task: Task, prediction: Tensor, coloured: Picture | None = None) -> Tile:
    """The tile of what `Task.prediction` gives for one image.

    Args:
        coloured: its `picture`, where it has been made already.
    """
    if task.dense:
        title = f"{task.name} (near is bright)" if task.target_kind == "depth" else task.name
        return Tile(title, small(picture(task, prediction) if coloured is None else coloured), task.target_kind)
    if task.image_target == "class":
        best = int(prediction.argmax())
        return Tile(task.name, f"class {best}, {prediction[best]:.0%}")
    return Tile(task.name, " ".join(f"{value:.3g}" for value in prediction.tolist()[:6]))


def prediction_sheet(image: Picture, tiles: Sequence[Tile], layout: Layout) -> Picture:
    """The image and every task with titles, in rows of at most five.

    Args:
        image: `[h, w, 3]`, made by `small`.
        tiles: of the tasks.
        layout: "overlay" blends classes and normals over the image and tints it where values are high; depth, whose
            grey would be lost in it, stays as it is. "beside" shows all pictures as they are.

    Returns:
        `[H, W, 3]`.
    """
    everything = [Tile("input", image), *tiles]
    rows = math.ceil(len(everything) / _COLUMNS)
    columns = math.ceil(len(everything) / rows)
    height, width = image.shape[0] + _TITLE + _GAP, max(image.shape[1], _LEAST_WIDTH) + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for index, tile in enumerate(everything):
        left, top = index % columns * width + _GAP, index // columns * height + _GAP
        draw.text((left, top), _cut(tile.title, font, width - _GAP), _INK, font)
        if isinstance(tile.picture, str):
            draw.text((left, top + _TITLE + _GAP), _cut(tile.picture, font, width - _GAP), _INK, font)
            continue
        shown = _over(tile.picture, tile.kind, image) if layout == "overlay" else tile.picture
        sheet.paste(Image.fromarray(shown), (left, top + _TITLE))
    return np.asarray(sheet)


def _over(shown: Picture, kind: TargetKind, image: Picture) -> Picture:
    if kind in ("classes", "normals"):
        return (_OPACITY * shown + (1 - _OPACITY) * image).round().astype(np.uint8)
    if kind == "values":
        opacity, grey = shown / 255, image.mean(axis=2, keepdims=True)
        return (opacity * np.asarray(_TINT) + (1 - opacity) * grey).round().astype(np.uint8)
    return shown


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
