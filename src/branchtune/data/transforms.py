"""Joint transforms: what happens to an image happens to every target of the sample, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from branchtune.data.augmentation import Augmentation, Interpolation
from branchtune.data.maps import (
    ClassMap,
    LabelMap,
    LineMap,
    MapKind,
    NormalMap,
    ValueMap,
    as_map,
    turned_vectors,
    zoomed,
)
from branchtune.data.warping import warped_cubic
from branchtune.errors import UserError
from branchtune.ignored import IGNORED_CLASS

Sample = dict[str, Any]
Kinds = Mapping[str, MapKind]

_MODES: dict[Interpolation, tuple[InterpolationMode, bool]] = {
    "linear": (InterpolationMode.BILINEAR, True),
    "cubic": (InterpolationMode.BICUBIC, False),
}


def flip_horizontal(sample: Sample, kinds: Kinds) -> Sample:
    """Mirror image and maps left to right; the x component of normals changes its sign.

    Args:
        sample: `image` `[3, H, W]`, maps `[H, W]` or `[3, H, W]`, anything else is passed through.
        kinds: target kind of each task by name.
    """
    return _each(sample, kinds, F.horizontal_flip)


def resized_crop(
    sample: Sample,
    kinds: Kinds,
    window: tuple[int, int, int, int],
    size: tuple[int, int],
    scale: float = 1.0,
    interpolation: Interpolation = "linear",
) -> Sample:
    """Cut a window out of image and maps, bring it to `size`, and divide depth by `scale`.

    Maps are resampled by their nearest pixel: classes stay classes, normals stay unit normals, and an ignored pixel
    never bleeds into its neighbours. Lines that shrink stay whole (`LineMap`). Normals keep their direction under
    zoom, as in the recipe of scale-lab/MTLoRA.

    Args:
        sample: as for `flip_horizontal`; maps have the image's height and width.
        kinds: target kind of each task by name.
        window: top, left, height and width in pixels.
        size: height and width of the result.
        scale: zoom factor.
        interpolation: `linear` resamples the image bilinearly, antialiased where it shrinks. `cubic` is the published
            recipe: image and normals bicubically, without antialiasing, and normals brought back to unit length;
            pixels whose nearest one is ignored stay ignored; lines by their nearest pixel too.
    """
    mode, antialias = _MODES[interpolation]
    place = {"top": window[0], "left": window[1], "height": window[2], "width": window[3], "size": list(size)}

    def change(value: Tensor) -> Tensor:
        if interpolation == "cubic" and value.dtype == torch.uint8 and not isinstance(value, LabelMap):
            # The kernel for bytes clamps between its two passes.
            smooth = F.resized_crop(value.float(), **place, interpolation=mode, antialias=antialias)
            return _as_bytes(smooth)
        if interpolation == "cubic" and isinstance(value, LineMap):
            value = value.as_subclass(ValueMap)
        changed = F.resized_crop(value, **place, interpolation=mode, antialias=antialias)
        if interpolation == "cubic" and isinstance(value, NormalMap):
            plain = value.as_subclass(Tensor).nan_to_num(0.0)
            vectors = F.resized_crop(plain, **place, interpolation=mode, antialias=antialias)
            changed = _unit(vectors, ~changed.as_subclass(Tensor).isnan())
        return zoomed(changed, scale) if isinstance(changed, LabelMap) else changed

    return _each(sample, kinds, change)


def turned_and_scaled(
    sample: Sample,
    kinds: Kinds,
    degrees: float,
    scale: float,
    fill: Literal["ignore", "zero"] = "ignore",
    interpolation: Interpolation = "linear",
) -> Sample:
    """Turn image and maps about their centre and scale them, without changing their size.

    The image is black where nothing was. Maps are resampled by their nearest pixel. Normals turn with the image, depth
    is divided by `scale`.

    Args:
        sample: as for `flip_horizontal`.
        kinds: target kind of each task by name.
        degrees: counter-clockwise.
        scale: above 1 enlarges.
        fill: what maps hold where nothing was: `ignore`, or `zero` in maps of classes and values that are not ignored
            as a whole.
        interpolation: `linear` resamples the image bilinearly. `cubic` is the published recipe: image and normals
            bicubically, and normals brought back to unit length; pixels whose nearest one is ignored stay ignored.
    """

    def change(value: Tensor) -> Tensor:
        if not isinstance(value, LabelMap) and interpolation == "cubic":
            smooth = warped_cubic(value.float(), degrees, scale)
            return _as_bytes(smooth) if value.dtype == torch.uint8 else smooth
        if not isinstance(value, LabelMap):
            return F.affine(value, -degrees, [0, 0], scale, [0.0, 0.0], InterpolationMode.BILINEAR, fill=0)
        if not isinstance(value, ClassMap):
            value = tv_tensors.wrap(value.as_subclass(Tensor).to(torch.float32), like=value)
        plain = value.as_subclass(Tensor)
        ignored = plain == IGNORED_CLASS if isinstance(value, ClassMap) else plain.isnan()
        empty = float(IGNORED_CLASS) if isinstance(value, ClassMap) else float("nan")
        if fill == "zero" and isinstance(value, ClassMap | ValueMap) and not ignored.all():
            empty = 0.0
        turned = F.affine(value, -degrees, [0, 0], scale, [0.0, 0.0], fill=empty)
        if interpolation == "cubic" and isinstance(value, NormalMap):
            vectors = warped_cubic(plain.nan_to_num(0.0), degrees, scale)
            turned = turned_vectors(_unit(vectors, ~turned.as_subclass(Tensor).isnan()), degrees)
        return zoomed(turned, scale)

    return _each(sample, kinds, change)


def _each(sample: Sample, kinds: Kinds, change: Callable[[Tensor], Tensor]) -> Sample:
    """Apply `change` to the image and to every map as the tv_tensor of its kind."""
    changed = {**sample, "image": change(sample["image"])}
    for name, kind in _maps(sample, kinds):
        changed[name] = change(as_map(sample[name], kind)).as_subclass(Tensor)
    return changed


def _as_bytes(smooth: Tensor) -> Tensor:
    """Floats that a cubic kernel made of bytes, which overshoot."""
    return smooth.round().clamp(0, 255).to(torch.uint8)


def _unit(vectors: Tensor, valid: Tensor) -> LabelMap:
    """`[3, H, W]` divided by its length; NaN where not `valid` or without a direction."""
    length = vectors.square().sum(dim=0, keepdim=True).sqrt()
    unit = torch.where(valid & (length > 0), vectors / length, torch.nan)
    return as_map(unit, "normals")


def _maps(sample: Sample, kinds: Kinds) -> list[tuple[str, MapKind]]:
    return [(n, kind) for n, kind in kinds.items() if kind != "image" and sample.get(n) is not None]


class Transform:
    """Raw sample -> training sample: augmentation, image size, the contract's dtypes, normalisation.

    A raw sample holds the image as uint8 or as floats in [0, 1], and maps in any dtype that keeps their
    values. The result holds a float32 image, int64 classes and float32 for the other maps.

    Args:
        kinds: target kind of each task by name; a task that the sample lacks is skipped.
        image_size: height and width of the result.
        mean, std: per channel, of images in [0, 1] (the backbone's data configuration).
        augmentation: None changes nothing at random (evaluation).
        interpolation: of images and normals, see `resized_crop` and `turned_and_scaled`.
    """

    def __init__(
        self,
        kinds: Kinds,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        interpolation: Interpolation = "linear",
    ) -> None:
        if len(image_size) != 2 or min(image_size) < 2:
            raise UserError(f"image size {image_size}: give a height and a width of at least 2")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f"mean {tuple(mean)} and std {tuple(std)}: give three channels each, std above 0")
        self.kinds = dict(kinds)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.mean = list(mean)
        self.std = list(std)
        self.augmentation = augmentation
        self.interpolation = interpolation

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Transform one sample; equal generators give equal results, and `sample` is left as it was."""
        if self.augmentation is None:
            sample = self._resized(sample, (0, 0, *sample["image"].shape[-2:]))
            image = F.to_dtype(sample["image"], torch.float32, scale=True)
        else:
            sample = self._augmented(sample, self.augmentation, generator)
            image = F.to_dtype(sample["image"], torch.float32, scale=True)
            image = _jitter(image, self.augmentation.jitter, generator)
        targets = {
            name: sample[name].to(torch.int64 if kind == "classes" else torch.float32, copy=True)
            for name, kind in _maps(sample, self.kinds)
        }
        return {**sample, **targets, "image": F.normalize(image, self.mean, self.std)}

    def _augmented(self, sample: Sample, wanted: Augmentation, generator: np.random.Generator) -> Sample:
        if wanted.rotation or wanted.scale_range:
            low, high = wanted.scale_range or (1.0, 1.0)
            degrees, factor = wanted.rotation * generator.uniform(-1, 1), generator.uniform(low, high)
            sample = turned_and_scaled(
                sample, self.kinds, float(degrees), float(factor), wanted.fill, self.interpolation
            )
        scale = float(generator.choice(wanted.scales))
        sample = self._resized(sample, _window(sample["image"].shape[-2:], scale, wanted.window, generator), scale)
        if generator.random() < wanted.flip:
            sample = flip_horizontal(sample, self.kinds)
        return sample

    def _resized(self, sample: Sample, window: tuple[int, int, int, int], scale: float = 1.0) -> Sample:
        return resized_crop(sample, self.kinds, window, self.image_size, scale, self.interpolation)


def _window(
    size: Sequence[int], scale: float, place: Literal["random", "centre"], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    height, width = size
    h, w = max(1, round(height / scale)), max(1, round(width / scale))
    if place == "centre":
        return (height - h) // 2, (width - w) // 2, h, w
    top, left = generator.integers(height - h, endpoint=True), generator.integers(width - w, endpoint=True)
    return int(top), int(left), h, w


def _jitter(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    if strength == 0:
        return image
    brightness, contrast = 1 + strength * generator.uniform(-1, 1, size=2)
    return F.adjust_contrast(F.adjust_brightness(image, float(brightness)), float(contrast))
