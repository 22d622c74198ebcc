"""Scenes as a map-style dataset: rendered once, kept compactly in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from branchtune.errors import UserError, unknown

from .classes import CLASSES, PARTS
from .render import DENSE_LABELS, LABELS, SPLITS, render_scene

_COMPACT = {"semseg": np.uint8, "parts": np.uint8, "saliency": np.uint8, "edge": np.uint8, "normals": np.float16}
_TARGET = {"semseg": torch.int64, "parts": torch.int64}


class Scenes(Dataset[dict[str, Any]]):
    """Procedural indoor scenes with exact labels (see `render_scene`), each rendered at its first use and then kept.

    An item is `{"id": "train-000012", "image": float32 [3, H, W] normalised, "<task>": target}`; an index may also be
    a pair (epoch, index), of which the epoch is ignored: there is no augmentation. Normals are kept in half precision
    and brought back to unit length.

    Args:
        split: "train", "val" or "test": disjoint scenes for every seed.
        count: number of scenes.
        image_size: height and width in pixels.
        seed: seed of the scenes.
        tasks: labels to yield; all dense ones if None.
        mean: per channel; the image is normalised to (image - mean) / std.
        std: per channel.

    Raises:
        UserError: unknown split or label, count or size below 1.
    """

    class_names: ClassVar[Mapping[str, Sequence[str]]] = {"semseg": CLASSES, "parts": PARTS}

    def __init__(
        self,
        split: str,
        count: int,
        image_size: tuple[int, int],
        seed: int = 0,
        tasks: Sequence[str] | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        tasks = DENSE_LABELS if tasks is None else tuple(tasks)
        for task in tasks:
            if task not in LABELS:
                raise unknown("label", task, LABELS)
        if count < 1:
            raise UserError(f"scenes split {split!r}: count is {count}, but must be at least 1")
        if min(image_size) < 1:
            raise UserError(f"scenes image_size {tuple(image_size)}: both sides must be at least 1")
        self.split, self.count, self.seed, self.tasks = split, count, seed, tasks
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self._mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self._kept: dict[int, dict[str, NDArray[Any]]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        number = index[1] if isinstance(index, tuple) else index
        if not -self.count <= number < self.count:
            raise IndexError(f"scene {number} of {self.count}")
        number %= self.count
        if number not in self._kept:
            self._kept[number] = self._render(number)
        kept = self._kept[number]
        image = torch.from_numpy(kept["image"]).float() / 255
        item: dict[str, Any] = {
            "id": f"{self.split}-{number:06d}",
            "image": (image - self._mean) / self._std,
        }
        for task in self.tasks:
            item[task] = _target(task, kept[task])
        return item

    @property
    def missing(self) -> int:
        """How many scenes are not in memory yet."""
        return self.count - len(self._kept)

    def prepare(self, progress: Callable[[int, int], None] | None = None, workers: int = 1) -> None:
        """Render all scenes that are not in memory yet.

        Args:
            progress: called with (scenes done, all scenes) after each one.
            workers: processes to render with; 1 renders in this one. More are spawned: a script that asks for them
                needs the usual `if __name__ == "__main__":`.
        """
        missing = [i for i in range(self.count) if i not in self._kept]
        if workers <= 1:
            self._collect(missing, map(self._render, missing), progress)
            return
        # Forked workers could inherit locks that torch's threads hold.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            render = partial(_render_compact, self.seed, self.split, self.image_size, self.tasks)
            self._collect(missing, pool.map(render, missing, chunksize=16), progress)

    def _collect(self, numbers: list[int], scenes: Any, progress: Callable[[int, int], None] | None) -> None:
        for number, scene in zip(numbers, scenes, strict=True):
            self._kept[number] = scene
            if progress is not None:
                progress(len(self._kept), self.count)

    def _render(self, number: int) -> dict[str, NDArray[Any]]:
        return _render_compact(self.seed, self.split, self.image_size, self.tasks, number)


def _render_compact(
    seed: int, split: str, size: tuple[int, int], tasks: tuple[str, ...], number: int
) -> dict[str, NDArray[Any]]:
    scene = render_scene(seed, number, *size, split=split)
    kept = {task: scene[task].astype(_COMPACT.get(task, scene[task].dtype)) for task in tasks}
    kept["image"] = (scene["image"] * 255).round().astype(np.uint8)
    return kept


def _target(task: str, kept: NDArray[Any]) -> Tensor:
    target = torch.tensor(kept)
    if task == "normals":
        # Torch's own norm takes 20 times as long over the first axis.
        normals = target.float()
        return normals / normals.square().sum(dim=0).sqrt()
    if target.dtype == torch.uint8:
        return target.to(_TARGET.get(task, torch.float32))
    return target
