"""Outputs of dense tasks as pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.task import TargetKind, Task

_GREY = np.uint8(89)


def picture(task: Task, output: Tensor) -> NDArray[np.uint8]:
    """`[C, H, W]` of one image -> `[H, W, 3]`: class colours, normals as (n + 1) / 2, values in grey.

    Depth is scaled to its own range, near is bright; logits of one channel are shown as probabilities.
    """
    if task.target_kind == "classes":
        return class_colours(task.out_channels)[output.argmax(0).numpy()]
    if task.target_kind == "normals":
        return _bytes((output.permute(1, 2, 0) + 1) / 2)
    values = output.mean(0)
    if task.target_kind == "depth":
        low, high = values.min(), values.max()
        values = (high - values) / (high - low).clamp_min(1e-9)
    else:
        values = values.sigmoid()
    return _bytes(values[..., None].expand(-1, -1, 3))


def target_picture(kind: TargetKind, target: Tensor, channels: int) -> NDArray[np.uint8]:
    """A target `[H, W]` or `[3, H, W]` -> `[H, W, 3]` in the colours of `picture`; ignored pixels are grey.

    Values are scaled to their own range unless they are in [0, 1].
    """
    if kind == "classes":
        ignored = target == IGNORED_CLASS
        coloured = class_colours(channels)[torch.where(ignored, 0, target).long().numpy()]
    elif kind == "normals":
        ignored = target.isnan().any(dim=0)
        coloured = _bytes((target.nan_to_num().permute(1, 2, 0) + 1) / 2)
    else:
        values = target.float()
        ignored = values.isnan()
        known = values[~ignored] if (~ignored).any() else values.new_zeros(1)
        low, high = (0.0, 1.0) if known.min() >= 0 and known.max() <= 1 else (known.min(), known.max())
        values = (values.nan_to_num(0.0) - low) / max(high - low, 1e-9)
        coloured = _bytes((1 - values if kind == "depth" else values)[..., None].expand(-1, -1, 3))
    return np.where(ignored.numpy()[..., None], _GREY, coloured)


def class_colours(count: int) -> NDArray[np.uint8]:
    """Distinct colours, class 0 dark: the hue steps by the golden ratio, brightness alternates."""
    import colorsys

    colours = [(0.1, 0.1, 0.1)] + [
        colorsys.hsv_to_rgb((0.618034 * i) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.25 * (i // 2 % 2))
        for i in range(1, count)
    ]
    return (255 * np.asarray(colours)).astype(np.uint8)


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return (255 * values.clamp(0, 1)).to(torch.uint8).numpy()
