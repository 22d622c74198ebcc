"""One image through a model: pixels of any size in, outputs at that size out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchtune.backbone.check import placement
from branchtune.data.transforms import Transform
from branchtune.decoders.resample import resize, resized_rows
from branchtune.model import MultiTaskModel
from branchtune.tasks.masked import full_precision
from branchtune.tasks.prediction import check_prediction
from branchtune.tasks.task import Task

STRIP = 4_000_000  # elements of a map that are made at a time


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
    """What the decoders of these tasks return for `[B, 3, h, w]`, not yet activated: `[B, C, h, w]`, or `[B, C]`.

    The images take the model's device and precision.
    """
    features = model.backbone(images.to(placement(model.backbone.frozen)), list(tasks), {})
    return {name: model.decoders[name](features[name], (images.shape[2], images.shape[3])) for name in tasks}


@dataclass(frozen=True)
class ImageOutput:
    """What the decoder of one task returned for one image, to be brought to the image's own size.

    Maps are resized before they are activated, so that normals are of unit length at the new size too, and an
    activation of a user's own is applied once. Those of many channels are made in strips: 40 classes at 20 megapixels
    would take 3.2 GB.

    Args:
        task: of the output.
        raw: `[C, h, w]` or `[C]`, from `raw_outputs`.
        size: height and width of the image.
    """

    task: Task
    raw: Tensor
    size: tuple[int, int]

    def prediction(self) -> Tensor:
        """What `Task.prediction` makes of it, on the CPU: `[H, W]` or `[C, H, W]` of the image's size, or `[C]`.

        Raises:
            UserError: a user's own task returns something else.
        """
        if self.task.target_kind in ("classes", "normals"):
            return self._joined(self._predicted(strip) for strip in self.strips())
        own = full_precision(self.raw[None])
        return self._predicted(self.task.activate(resize(own, self.size) if self.task.dense else own))

    def scores(self) -> Tensor:
        """What the model returns for a map, at the image's size, on the CPU: `[C, H, W]`; a large one in `strips`."""
        return self._joined(strip[0].float().cpu() for strip in self.strips())

    def strips(self) -> Iterator[Tensor]:
        """What the model returns for a map at the image's size, a few rows at a time, from above: `[1, C, rows, W]`."""
        own, (height, width) = full_precision(self.raw[None]), self.size
        rows = max(1, STRIP // (own.shape[1] * width))
        for top in range(0, height, rows):
            yield self.task.activate(resized_rows(own, self.size, range(top, min(top + rows, height))))

    def _joined(self, strips: Iterable[Tensor]) -> Tensor:
        """Strips below each other, each of them in memory once."""
        whole, top = torch.empty(0), 0
        for strip in strips:
            if not top:
                whole = strip.new_empty(*strip.shape[:-2], *self.size)
            whole[..., top : top + strip.shape[-2], :] = strip
            top += strip.shape[-2]
        return whole

    def _predicted(self, output: Tensor) -> Tensor:
        found = self.task.prediction(output)
        check_prediction(self.task, found, output)
        return (found.float() if found.is_floating_point() else found)[0].cpu()
