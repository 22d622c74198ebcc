"""The NYUD_MT layout: NYU-Depth-v2 with segmentation, depth, normals and edges, one file per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from branchtune.data.decoding import read_array, read_floats, read_label_image
from branchtune.data.label_files import Field, LabelFiles
from branchtune.data.stored import StoredSamples
from branchtune.errors import UserError
from branchtune.tasks.targets import MAX_DEPTH
from branchtune.tasks.task import Task


def _segmentation(channels: int, path: Path) -> np.ndarray:
    values = read_label_image(path)
    if values.max(initial=0) > channels:
        raise UserError(
            f"{path}: value {values.max()} is above the task's {channels} classes "
            "(0 is unlabelled, k is class k - 1), set num_classes to match"
        )
    return values - np.uint8(1)  # wraps around: 0, unlabelled, becomes 255, ignored


def _depth(channels: int, path: Path) -> np.ndarray:
    metres = read_floats(path, "[H, W]", 2)
    wrong = metres[(metres < 0) | (metres >= MAX_DEPTH)]
    if wrong.size:
        raise UserError(
            f"{path}: value {wrong[0]:g}, expected metres above 0 and below {MAX_DEPTH:g} (0 or NaN where unknown)"
        )
    return np.where(metres > 0, metres, np.float32(np.nan))


def _normals(channels: int, path: Path) -> np.ndarray:
    values = read_floats(path, "[H, W, 3]", 3)
    if values.shape[-1] != 3:
        raise UserError(f"{path}: shape {list(values.shape)}, expected [H, W, 3]")
    normals = np.ascontiguousarray(values.transpose(2, 0, 1))
    outside = np.abs(normals) > 1.001
    if outside.any():
        raise UserError(f"{path}: value {normals[outside][0]:g}, expected the elements of unit normals")
    length = np.sqrt(np.square(normals).sum(0))
    length[length == 0] = np.nan
    return normals / length


def _edge(channels: int, path: Path) -> np.ndarray:
    values = read_array(path)
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {values.dtype} {list(values.shape)}, expected [H, W] of 0 and 1")
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise UserError(f"{path}: value {wrong[0]}, expected [H, W] of 0 and 1")
    return values.astype(np.uint8)


class NYUDFiles(LabelFiles):
    """NYU-Depth-v2 in the NYUD_MT layout.

    | file | holds | ignored |
    |---|---|---|
    | `gt_sets/<split>.txt` | one id per line | |
    | `images/<id>.jpg` | RGB | |
    | `segmentation/<id>.png` | 8 bit, 0 unlabelled, k is class k - 1 | 0 |
    | `depth/<id>.npy` | float `[H, W]`, metres below 1000 | 0, NaN |
    | `normals/<id>.npy` | float `[H, W, 3]` in [-1, 1], made unit length | zero vector, NaN |
    | `edge/<id>.npy` | `[H, W]` of 0 and 1 | |

    Normals are taken to be in the camera frame x right, y down, z forward: visible surfaces face the camera
    (n . p < 0 at the point p, hence z < 0 near the image centre). No sign is changed on loading.

    Args:
        root: folder of the expanded package.
        labels: `semseg` with its number of classes, `depth`, `normals`, `edge`.
    """

    fields: Mapping[str, Field] = {
        "semseg": Field("classes", _segmentation, ("segmentation/{id}.png",)),
        "depth": Field("depth", _depth, ("depth/{id}.npy",)),
        "normals": Field("normals", _normals, ("normals/{id}.npy",)),
        "edge": Field("values", _edge, ("edge/{id}.npy",)),
    }
    lists: str = "gt_sets/{split}.txt"
    package: ClassVar[str] = "an expanded NYUD_MT package"
    channels: ClassVar[Mapping[str, int]] = {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}


class NYUD(StoredSamples):
    """NYU-Depth-v2 in the NYUD_MT layout (see `NYUDFiles`), with samples as every dataset here yields them.

    A cache takes 1.6 MB per image of 240x320 pixels with all four labels.

    Args:
        root: folder of the expanded package.
        split: "train" or "val".
        tasks: tasks named `semseg`, `depth`, `normals` or `edge`; only their files are read and required.
        image_size: height and width of the samples.
        options: the keyword arguments of `StoredSamples`.
    """

    def __init__(
        self, root: str | Path, split: str, tasks: Sequence[Task], image_size: tuple[int, int], **options: Any
    ) -> None:
        super().__init__(NYUDFiles.for_tasks(root, tasks), split, tasks, image_size, **options)
