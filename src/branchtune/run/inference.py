"""One image through a model: pixels of any size in, outputs at that size out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchtune.data.transforms import Transform
from branchtune.decoders.resample import resize
from branchtune.model import MultiTaskModel
from branchtune.tasks.task import Task


def prepared(pixels: NDArray[np.uint8], transform: Transform) -> Tensor:
    """Pixels `[H, W, 3]` -> what the model takes, `[3, h, w]`."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return transform({"image": image}, np.random.default_rng(0))["image"]


def pixels_of(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """A normalised image `[3, h, w]` -> pixels `[h, w, 3]`, as it was before."""
    centre, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    pixels = (255 * (image.float() * scale + centre)).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).numpy()


def raw_outputs(model: MultiTaskModel, images: Tensor, tasks: Collection[str]) -> dict[str, Tensor]:
    """What the decoders of these tasks return for `[B, 3, h, w]`, not yet activated: `[B, C, h, w]`, or `[B, C]`."""
    features = model.backbone(images, list(tasks), {})
    return {name: model.decoders[name](features[name], (images.shape[2], images.shape[3])) for name in tasks}


def at_own_size(task: Task, raw: Tensor, size: tuple[int, int]) -> Tensor:
    """What the model returns for one image, on the CPU: a map `[C, *size]`, or `[C]`.

    Maps are resized before they are activated, so that normals are of unit length at the new size too, and an
    activation of a user's own is applied once.

    Args:
        raw: `[C, h, w]` or `[C]`, from `raw_outputs`.
        size: height and width of the image.
    """
    own = raw[None]
    return task.activate(resize(own, size) if task.dense else own)[0].float().cpu()
