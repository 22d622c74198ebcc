"""Predictions and targets of dense tasks as pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.task import TargetKind, Task

_GREY = np.uint8(89)
# From no error to a large one, black over violet and orange to light yellow.
_ERROR_COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
_BAND = 1_000_000  # pixels that are coloured at a time, with floats in between
Limits = tuple[float, float]


def picture(task: Task, prediction: Tensor, limits: Limits | None = None) -> NDArray[np.uint8]:
    """`Task.prediction` of one image, `[H, W]` or `[C, H, W]` -> `[H, W, 3]`, in the colours of `target_picture`.

    Of depth and values with several channels the mean is shown.

    Args:
        limits: show depth or values between these; default: between their smallest and largest, or from 0 to 1 where
            `fixed_range` says so.
    """
    shown = prediction
    if task.target_kind in ("depth", "values"):
        shown = shown.mean(0) if shown.ndim == 3 else shown
        limits = limits or ((0.0, 1.0) if fixed_range(task) else _range(shown))
    # Of more classes than that one may be predicted that has the number of ignored targets.
    ignored = IGNORED_CLASS if task.out_channels <= IGNORED_CLASS else -1
    height, width = shown.shape[-2:]
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows := max(1, _BAND // width)):
        band = slice(top, top + rows)
        pixels[band] = _coloured(task.target_kind, shown[..., band, :], task.out_channels, limits, ignored)
    return pixels


def fixed_range(task: Task) -> bool:
    """Whether its pictures are black at 0 and white at 1: only those of values that are never outside."""
    return task.target_kind == "values" and task.value_range == (0.0, 1.0)


def target_picture(kind: TargetKind, target: Tensor, channels: int, limits: Limits | None = None) -> NDArray[np.uint8]:
    """A target `[H, W]` or `[3, H, W]` -> `[H, W, 3]` in the colours of `picture`; ignored pixels are grey.

    Values are scaled to `limits`, by default to their own range unless they are in [0, 1].
    """
    return _coloured(kind, target, channels, limits, IGNORED_CLASS)


def _coloured(
    kind: TargetKind, values: Tensor, channels: int, limits: Limits | None, ignored_class: int
) -> NDArray[np.uint8]:
    if kind == "classes":
        classes = values.long()
        ignored = classes == ignored_class
        coloured = class_colours(channels)[torch.where(ignored, 0, classes).numpy()]
    elif kind == "normals":
        ignored = values.isnan().any(dim=0)
        coloured = _bytes((values.nan_to_num().permute(1, 2, 0) + 1) / 2)
    else:
        values = values.float()
        ignored = values.isnan()
        coloured = _grey(values.nan_to_num(0.0), limits or value_limits(values), near_is_bright=kind == "depth")
    return np.where(ignored.numpy()[..., None], _GREY, coloured)


def value_limits(target: Tensor) -> Limits:
    """The range of the labelled values, or (0, 1) where they are within it."""
    known = target[~target.isnan()]
    if not known.numel() or (known.min() >= 0 and known.max() <= 1):
        return 0.0, 1.0
    return float(known.min()), float(known.max())


def error_picture(error: Tensor, most: float) -> NDArray[np.uint8]:
    """Errors `[H, W]` from 0 to `most` (and above) -> `[H, W, 3]`, dark to light; NaN is grey."""
    stops = np.linspace(0, 1, len(_ERROR_COLOURS))
    scaled = (error.nan_to_num(0.0) / max(most, 1e-9)).clamp(0, 1).numpy()
    channels = [np.interp(scaled, stops, levels) for levels in zip(*_ERROR_COLOURS, strict=True)]
    return np.where(error.isnan().numpy()[..., None], _GREY, np.stack(channels, axis=-1).astype(np.uint8))


def error_gradient() -> str:
    """The colours of `error_picture`, as a gradient of CSS."""
    return f"linear-gradient(to right, {', '.join(f'rgb({r}, {g}, {b})' for r, g, b in _ERROR_COLOURS)})"


def class_colours(count: int) -> NDArray[np.uint8]:
    """Distinct colours, class 0 dark: the hue steps by the golden ratio, brightness alternates."""
    import colorsys

    colours = [(0.1, 0.1, 0.1)] + [
        colorsys.hsv_to_rgb((0.618034 * i) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.25 * (i // 2 % 2))
        for i in range(1, count)
    ]
    return (255 * np.asarray(colours)).astype(np.uint8)


def _range(values: Tensor) -> Limits:
    known = values[values.isfinite()]
    return (float(known.min()), float(known.max())) if known.numel() else (0.0, 1.0)


def _grey(values: Tensor, limits: Limits, near_is_bright: bool) -> NDArray[np.uint8]:
    scaled = (values - limits[0]) / max(limits[1] - limits[0], 1e-9)
    return _bytes((1 - scaled if near_is_bright else scaled)[..., None].expand(-1, -1, 3))


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return (255 * values.clamp(0, 1)).to(torch.uint8).numpy()
