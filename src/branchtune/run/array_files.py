"""Predictions and scores as `.npy` files, written without a second copy in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from branchtune.atomic import replace_file
from branchtune.run.inference import ImageOutput
from branchtune.tasks.task import Task

MOST_SCORES = 2_000_000_000  # bytes of one file
_FLOAT = np.dtype("<f4")


def write_array(path: Path, value: Tensor) -> None:
    """A tensor on the CPU as it is."""
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, value.numpy())


def write_scores(path: Path, output: ImageOutput) -> None:
    """The scores of a map of classes at the image's own size, float32 `[C, H, W]`, strip by strip."""
    channels, (height, width) = len(output.raw), output.size
    header = {"descr": _FLOAT.str, "fortran_order": False, "shape": (channels, height, width)}
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin, top = file.tell(), 0
        for strip in output.strips():
            for channel, rows in enumerate(strip[0].cpu().numpy().astype(_FLOAT, copy=False)):
                file.seek(begin + _FLOAT.itemsize * (channel * height + top) * width)
                file.write(rows.tobytes())
            top += strip.shape[2]


def too_large(tasks: Sequence[Task], size: tuple[int, int]) -> str | None:
    """Why the scores of these tasks cannot be written for an image of this size."""
    for task in tasks:
        need = _FLOAT.itemsize * task.out_channels * size[0] * size[1]
        if need > MOST_SCORES:
            return (
                f"the scores of {task.name} would take {need / 1e9:.1f} GB ({task.out_channels} classes, {size[0]} x "
                f"{size[1]} pixels; at most {MOST_SCORES / 1e9:g} GB): leave out --scores, or make the image smaller"
            )
    return None
