"""Targets as torchvision tv_tensors, so that every torchvision v2 transform treats each kind as it must be treated.

```python
from torchvision.transforms.v2 import functional as F

F.horizontal_flip(NormalMap(normals))  # mirrors the map and negates x
F.rotate(NormalMap(normals), 20)  # turns the map and the (x, y) of every normal
```
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from branchtune.tasks.targets import MAX_DEPTH
from branchtune.tasks.task import TargetKind

MapKind = TargetKind | Literal["lines"]

NEAREST = InterpolationMode.NEAREST


class LabelMap(tv_tensors.Mask):
    """A target `[H, W]` or `[3, H, W]` that is resampled by its nearest pixel, whatever interpolation is asked for."""


class ClassMap(LabelMap):
    """Integers `[H, W]`, 255 ignored."""


class ValueMap(LabelMap):
    """Numbers `[H, W]`, NaN ignored."""


class LineMap(ValueMap):
    """Thin lines, `[H, W]`, NaN ignored: a pixel that shrinking makes has the largest value of those that it covers.

    The nearest pixel breaks a line one pixel wide into dots: shrunk to a half, it keeps a half of them.
    """


class DepthMap(LabelMap):
    """Metres `[H, W]`: `zoomed` divides them."""


class NormalMap(LabelMap):
    """Unit normals `[3, H, W]` in the camera frame x right, y down, z forward, NaN ignored.

    A flip negates x, a rotation in the image plane turns (x, y); resizing and cropping keep every direction.
    """


_CLASSES: dict[MapKind, type[LabelMap]] = {
    "classes": ClassMap,
    "values": ValueMap,
    "lines": LineMap,
    "depth": DepthMap,
    "normals": NormalMap,
}


def as_map(target: Tensor, kind: MapKind) -> LabelMap:
    """A target with the behaviour of its kind, without a copy."""
    return target.as_subclass(_CLASSES[kind])


def zoomed(target: LabelMap, scale: float) -> LabelMap:
    """What a map's values become when the camera is nearer by `scale`: depth is divided by it.

    What would then be farther away than any depth is unknown.
    """
    if not isinstance(target, DepthMap) or scale == 1.0:
        return target
    depth = target.as_subclass(Tensor) / scale
    return tv_tensors.wrap(depth.masked_fill(depth >= MAX_DEPTH, torch.nan), like=target)


@F.register_kernel(functional="resize", tv_tensor_cls=LabelMap)
def _resize(target: LabelMap, size: Any, interpolation: Any = None, **options: Any) -> LabelMap:
    # NEAREST_EXACT samples at pixel centres; a Mask's own kernel would take NEAREST, which is half a pixel off.
    options = {**options, "interpolation": InterpolationMode.NEAREST_EXACT, "antialias": False}
    if isinstance(target, LineMap):
        target = _shrunk(target, size)
    return _apply(F.resize_image, target, size, **options)


def _shrunk(target: LineMap, size: Sequence[int]) -> LineMap:
    """The largest value of every cell, along the axes that `size` shrinks; NaN where all of a cell is."""
    values = target.as_subclass(Tensor).numpy()
    for axis, length in enumerate(size):
        if length < values.shape[axis]:
            starts = -(-np.arange(length) * values.shape[axis] // length)  # rounded up: the cells part the pixels
            values = np.fmax.reduceat(values, starts, axis)
    return tv_tensors.wrap(torch.from_numpy(values), like=target)


@F.register_kernel(functional="resized_crop", tv_tensor_cls=LabelMap)
def _resized_crop(
    target: LabelMap, top: int, left: int, height: int, width: int, size: Any, **options: Any
) -> LabelMap:
    cropped = _apply(F.crop_image, target, top, left, height, width)
    return _resize(cropped, size)


@F.register_kernel(functional="horizontal_flip", tv_tensor_cls=NormalMap)
def _flip(target: NormalMap) -> LabelMap:
    flipped = target.as_subclass(Tensor).flip(-1)
    flipped[0].neg_()
    return tv_tensors.wrap(flipped, like=target)


@F.register_kernel(functional="affine", tv_tensor_cls=LabelMap)
def _affine(target: LabelMap, angle: float, *args: Any, interpolation: Any = None, **options: Any) -> LabelMap:
    turned = _apply(F.affine_image, target, angle, *args, interpolation=NEAREST, **options)
    return turned_vectors(turned, -angle)  # affine counts clockwise


@F.register_kernel(functional="rotate", tv_tensor_cls=LabelMap)
def _rotate(target: LabelMap, angle: float, interpolation: Any = None, **options: Any) -> LabelMap:
    return turned_vectors(_apply(F.rotate_image, target, angle, interpolation=NEAREST, **options), angle)


def turned_vectors(target: LabelMap, degrees: float) -> LabelMap:
    """The vectors of normals, turned counter-clockwise as seen in the image (y points down)."""
    if not isinstance(target, NormalMap) or degrees == 0:
        return target
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = target.as_subclass(Tensor)
    return tv_tensors.wrap(torch.stack([x * cos + y * sin, y * cos - x * sin, z]), like=target)


def _apply(kernel: Any, target: LabelMap, *args: Any, **options: Any) -> LabelMap:
    """An image kernel on `[H, W]` or `[C, H, W]`."""
    plain = target.as_subclass(Tensor)
    result = kernel(plain if plain.ndim > 2 else plain[None], *args, **options)
    return tv_tensors.wrap(result if plain.ndim > 2 else result[0], like=target)
