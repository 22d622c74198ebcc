"""Joint transforms: what happens to an image happens to every target of the sample, each in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from branchtune.data.augmentation import Augmentation
from branchtune.errors import UserError
from branchtune.tasks.task import TargetKind

Sample = dict[str, Any]
Kinds = Mapping[str, TargetKind]


def flip_horizontal(sample: Sample, kinds: Kinds) -> Sample:
    """Mirror image and maps left to right; the x component of normals changes its sign.

    Args:
        sample: `image` `[3, H, W]`, maps `[H, W]` or `[3, H, W]`, anything else is passed through.
        kinds: target kind of each task by name.
    """
    flipped = {**sample, "image": sample["image"].flip(-1)}
    for name, kind in _maps(sample, kinds):
        flipped[name] = sample[name].flip(-1)
        if kind == "normals":
            flipped[name][0].neg_()
    return flipped


def resized_crop(
    sample: Sample, kinds: Kinds, window: tuple[int, int, int, int], size: tuple[int, int], scale: float = 1.0
) -> Sample:
    """Cut a window out of image and maps, bring it to `size`, and divide depth by `scale`.

    The image is resampled bilinearly (antialiased where it shrinks), every map by its nearest pixel: classes
    stay classes, normals stay unit normals, and an ignored pixel never bleeds into its neighbours. Normals
    keep their direction under zoom, as in the recipe of scale-lab/MTLoRA.

    Args:
        sample: as for `flip_horizontal`; maps have the image's height and width.
        kinds: target kind of each task by name.
        window: top, left, height and width in pixels.
        size: height and width of the result.
        scale: zoom factor.
    """
    extent = list(size)
    cropped = {**sample, "image": F.resized_crop(sample["image"], *window, size=extent, antialias=True)}
    for name, kind in _maps(sample, kinds):
        target = sample[name] if kind == "normals" else sample[name][None]
        target = F.resized_crop(target, *window, size=extent, interpolation=InterpolationMode.NEAREST_EXACT)
        if kind == "depth" and scale != 1.0:
            target = target / scale
        cropped[name] = target if kind == "normals" else target[0]
    return cropped


def _maps(sample: Sample, kinds: Kinds) -> list[tuple[str, TargetKind]]:
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
    """

    def __init__(
        self,
        kinds: Kinds,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
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

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Transform one sample; equal generators give equal results, and `sample` is left as it was."""
        height, width = sample["image"].shape[-2:]
        if self.augmentation is None:
            sample = resized_crop(sample, self.kinds, (0, 0, height, width), self.image_size)
            image = F.to_dtype(sample["image"], torch.float32, scale=True)
        else:
            scale = float(generator.choice(self.augmentation.scales))
            window = _random_window(height, width, scale, generator)
            sample = resized_crop(sample, self.kinds, window, self.image_size, scale)
            if generator.random() < self.augmentation.flip:
                sample = flip_horizontal(sample, self.kinds)
            image = F.to_dtype(sample["image"], torch.float32, scale=True)
            image = _jitter(image, self.augmentation.jitter, generator)
        targets = {
            name: sample[name].to(torch.int64 if kind == "classes" else torch.float32, copy=True)
            for name, kind in _maps(sample, self.kinds)
        }
        return {**sample, **targets, "image": F.normalize(image, self.mean, self.std)}


def _random_window(height: int, width: int, scale: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    h, w = max(1, round(height / scale)), max(1, round(width / scale))
    top, left = generator.integers(height - h, endpoint=True), generator.integers(width - w, endpoint=True)
    return int(top), int(left), h, w


def _jitter(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    if strength == 0:
        return image
    brightness, contrast = 1 + strength * generator.uniform(-1, 1, size=2)
    return F.adjust_contrast(F.adjust_brightness(image, float(brightness)), float(contrast))
