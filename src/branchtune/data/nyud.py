"""The NYUD_MT layout: NYU-Depth-v2 with segmentation, depth, normals and edges, one file per label."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from branchtune.data.augmentation import Augmentation
from branchtune.data.decoding import read_array, read_image, read_label_image
from branchtune.data.sampling import sample_generator
from branchtune.data.transforms import Sample, Transform
from branchtune.errors import UserError, unknown
from branchtune.tasks.targets import MAX_DEPTH
from branchtune.tasks.task import TargetKind, Task

SPLITS = ("train", "val")


def _segmentation(path: Path, channels: int) -> np.ndarray:
    values = read_label_image(path)
    if values.max(initial=0) > channels:
        raise UserError(
            f"{path}: value {values.max()} is above the task's {channels} classes "
            "(0 is unlabelled, k is class k - 1), set num_classes to match"
        )
    return values - np.uint8(1)  # wraps around: 0, unlabelled, becomes 255, ignored


def _depth(path: Path, channels: int) -> np.ndarray:
    metres = _floats(path, "[H, W]", 2)
    far = metres[np.isfinite(metres) & (metres >= MAX_DEPTH)]
    if far.size:
        raise UserError(f"{path}: value {far[0]:g}, expected metres below {MAX_DEPTH:g} (0 or NaN where unknown)")
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))


def _normals(path: Path, channels: int) -> np.ndarray:
    values = _floats(path, "[H, W, 3]", 3)
    if values.shape[-1] != 3:
        raise UserError(f"{path}: shape {list(values.shape)}, expected [H, W, 3]")
    normals = np.ascontiguousarray(values.transpose(2, 0, 1))
    outside = np.abs(normals) > 1.001
    if outside.any():
        raise UserError(f"{path}: value {normals[outside][0]:g}, expected the elements of unit normals")
    length = np.sqrt(np.square(normals).sum(0))
    length[length == 0] = np.nan
    return normals / length


def _edge(path: Path, channels: int) -> np.ndarray:
    values = read_array(path)
    wrong = values[(values != 0) & (values != 1)]
    if values.ndim != 2 or wrong.size:
        found = f"value {wrong.flat[0]}" if wrong.size else f"shape {values.shape}"
        raise UserError(f"{path}: {found}, expected [H, W] of 0 and 1")
    return values.astype(np.uint8)


def _floats(path: Path, expected: str, ndim: int) -> np.ndarray:
    values = read_array(path)
    if values.ndim != ndim or values.dtype.kind != "f":
        raise UserError(f"{path}: {values.dtype} {list(values.shape)}, expected floats {expected}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


class _Field(NamedTuple):
    """One kind of label: where its files are, and how one becomes an array with ignored pixels marked."""

    folder: str
    suffix: str
    kind: TargetKind
    read: Callable[[Path, int], np.ndarray]


FIELDS = {
    "semseg": _Field("segmentation", ".png", "classes", _segmentation),
    "depth": _Field("depth", ".npy", "depth", _depth),
    "normals": _Field("normals", ".npy", "normals", _normals),
    "edge": _Field("edge", ".npy", "values", _edge),
}
_IMAGES = ("images", ".jpg")


class NYUD(Dataset[Sample]):
    """NYU-Depth-v2 in the NYUD_MT layout, with samples as every dataset here yields them.

    | file | holds | ignored |
    |---|---|---|
    | `gt_sets/<split>.txt` | one id per line | |
    | `images/<id>.jpg` | RGB | |
    | `segmentation/<id>.png` | 8 bit, 0 unlabelled, k is class k - 1 | 0 |
    | `depth/<id>.npy` | float `[H, W]`, metres | not finite, <= 0 |
    | `normals/<id>.npy` | float `[H, W, 3]` in [-1, 1], made unit length | zero vector, NaN |
    | `edge/<id>.npy` | `[H, W]` of 0 and 1 | |

    Normals are taken to be in the camera frame x right, y down, z forward: visible surfaces face the camera
    (n . p < 0 at the point p, hence z < 0 near the image centre). No sign is changed on loading.

    Args:
        root: folder of the expanded package.
        split: "train" or "val".
        tasks: tasks named `semseg`, `depth`, `normals` or `edge`; only their files are read and required.
        image_size: height and width of the samples.
        mean, std: per channel normalisation of images in [0, 1].
        augmentation: None for evaluation.
        seed: with the epoch and the index, of the augmentation.
        cache: keep every decoded sample at its file's size in memory, in each worker process: 1.6 MB for
            240x320 pixels with all four labels.
        limit: keep only so many samples, the first ones of the split; None keeps all.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[Task],
        image_size: tuple[int, int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: bool = False,
        limit: int | None = None,
    ) -> None:
        self.root = Path(root)
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self._channels = {task.name: task.out_channels for task in tasks}
        for task in tasks:
            _check_task(task)
        self.transform = Transform({t.name: t.target_kind for t in tasks}, image_size, mean, std, augmentation)
        self.seed = seed
        self.ids = _read_split(self.root, split)[:limit]
        self._check_files(split)
        self._cache: dict[int, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """The sample at `index`, or at `(epoch, index)`: the epoch (else 0) decides the augmentation."""
        epoch, position = index if isinstance(index, tuple) else (0, index)
        position = range(len(self.ids))[position]
        return self.transform(self._raw(position), sample_generator(self.seed, epoch, position))

    def _raw(self, position: int) -> Sample:
        if self._cache is None:
            return self._read(self.ids[position])
        if position not in self._cache:
            self._cache[position] = self._read(self.ids[position])
        return self._cache[position]

    def _read(self, id_: str) -> Sample:
        image = torch.from_numpy(read_image(self._path(id_, *_IMAGES))).permute(2, 0, 1)
        sample: Sample = {"id": id_, "image": image}
        for name, channels in self._channels.items():
            field = FIELDS[name]
            path = self._path(id_, field.folder, field.suffix)
            target: Tensor = torch.from_numpy(np.ascontiguousarray(field.read(path, channels)))
            if target.shape[-2:] != image.shape[-2:]:
                size, expected = list(target.shape[-2:]), list(image.shape[-2:])
                raise UserError(f"{path}: size {size} differs from the image's {expected}, bring both to one size")
            sample[name] = target
        return sample

    def _path(self, id_: str, folder: str, suffix: str) -> Path:
        return self.root / folder / f"{id_}{suffix}"

    def _check_files(self, split: str) -> None:
        missing = []
        for folder, suffix in (_IMAGES, *(FIELDS[name][:2] for name in self._channels)):
            present = set(os.listdir(self.root / folder)) if (self.root / folder).is_dir() else set()
            missing += [f"{folder}/{id_}{suffix}" for id_ in self.ids if f"{id_}{suffix}" not in present]
        if missing:
            named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(f"{self.root}: {len(missing)} files of split {split!r} are missing ({named}), complete it")


def _check_task(task: Task) -> None:
    if task.name not in FIELDS:
        raise unknown("label", task.name, FIELDS)
    kind = FIELDS[task.name].kind
    if task.target_kind != kind:
        raise UserError(
            f"task {task.name!r} wants {task.target_kind!r} targets but its files hold {kind!r}, rename one"
        )


def _read_split(root: Path, split: str) -> list[str]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder, point the data root at an expanded NYUD_MT package")
    path = root / "gt_sets" / f"{split}.txt"
    try:
        ids = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read, it lists the ids of the split") from error
    if not ids:
        raise UserError(f"{path}: the split is empty, list one id per line")
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} ids are listed twice ({', '.join(twice[:5])}), list each once")
    return ids
