"""Example data in the folder layout: rendered scenes as image and label files, declared in `dataset.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from branchtune.atomic import replace_directory
from branchtune.data.declared_label import FILE
from branchtune.data.scenes import CLASSES, render_scene
from branchtune.errors import UserError

#: images without labels, to predict
UNLABELLED = "new"

DECLARATION = """\
tasks:
  semseg:  {{kind: classes, num_classes: [{classes}]}}
  depth:   {{kind: depth, units: mm}}
  normals: {{kind: normals}}
  edge:    {{kind: values, range: [0, 1], scale: {scale!r}}}   # stored as 0 and 255
splits: {{train: train.txt, val: val.txt}}
"""


def write_example(
    out: Path,
    train: int = 96,
    val: int = 16,
    new: int = 4,
    size: tuple[int, int] = (128, 128),
    *,
    overwrite: bool = False,
    advance: Callable[[], Any] = lambda: None,
) -> None:
    """Render scenes into a folder that `FolderFiles` reads; the same arguments give the same files.

    Args:
        out: the folder; it appears when everything is written.
        train, val: number of images of the splits, at least 1.
        new: number of images without labels, in the folder `new`.
        size: height and width in pixels.
        overwrite: replace what the folder holds.
        advance: called after each image.

    Raises:
        UserError: a number below 1 (`new`: below 0), or a folder that is not empty without `overwrite`.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("new", new, 0), ("size", min(size), 1)):
        if value < least:
            raise UserError(f"--{name}: {value} is too few, give at least {least}")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another folder, or --overwrite replaces all that is in it")
    with replace_directory(out) as folder:
        for name in ("images", "semseg", "depth", "normals", "edge", UNLABELLED):
            (folder / name).mkdir()
        scale = 1 / 255
        (folder / FILE).write_text(DECLARATION.format(classes=", ".join(CLASSES), scale=scale), encoding="utf-8")
        for split, count in (("train", train), ("val", val)):
            ids = [f"{split}-{index:03d}" for index in range(count)]
            (folder / f"{split}.txt").write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")
            for index, id_ in enumerate(ids):
                _write_scene(folder, id_, render_scene(0, index, *size, split=split))
                advance()
        for index in range(new):
            _save_image(folder / UNLABELLED / f"{index}.png", render_scene(0, index, *size, split="test")["image"])
            advance()


def _write_scene(folder: Path, id_: str, scene: dict[str, NDArray[Any]]) -> None:
    _save_image(folder / "images" / f"{id_}.png", scene["image"])
    colours = np.moveaxis((scene["normals"] + 1) / 2, 0, -1)
    for name, stored in (
        ("semseg", scene["semseg"].astype(np.uint8)),
        ("depth", np.round(scene["depth"] * 1000).astype(np.uint16)),
        ("normals", np.round(colours * 255).astype(np.uint8)),
        ("edge", (scene["edge"] * 255).astype(np.uint8)),
    ):
        Image.fromarray(stored).save(folder / name / f"{id_}.png")


def _save_image(path: Path, image: NDArray[Any]) -> None:
    Image.fromarray(np.moveaxis(np.round(image * 255), 0, -1).astype(np.uint8)).save(path)
