"""The model of a server: loaded once, described, and run on batches of prepared images."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from torch import Tensor

from branchtune._version import __version__
from branchtune.data.transforms import Transform
from branchtune.model import MultiTaskModel
from branchtune.pictures.colour import fixed_range, picture
from branchtune.pictures.encoding import image_bytes, npy_bytes
from branchtune.run.inference import ImageOutput, raw_outputs
from branchtune.serving.examples import Example
from branchtune.serving.limits import Limits
from branchtune.serving.schemas import (
    DecoderTime,
    Format,
    ModelDescription,
    NodeTime,
    Prediction,
    ServerLimits,
    TaskDescription,
    TaskOutput,
    Timing,
    Versions,
)
from branchtune.serving.timing import STEM, decoder_part, level_part, timed
from branchtune.tasks.targets import holds_classes
from branchtune.tasks.task import Task

PICTURES = {
    "classes": "one colour per class, class 0 is dark",
    "depth": "near is bright, scaled to the range of this image",
    "normals": "red, green and blue are x right, y down and z forward, from -1 to 1",
    "values": "high is bright, scaled to the range of this image",
}
FIXED = "black is 0, white is 1"
QUICKLY = 1  # zlib's level: five times the default's speed for files a tenth larger


@dataclass(frozen=True)
class Request:
    """One image to predict.

    Args:
        image: `[3, h, w]`, prepared by the model's transform.
        size: height and width of the uploaded image.
        format: of the outputs.
        scores: instead of maps of classes the scores that they were chosen by, in arrays and lists.
    """

    image: Tensor
    size: tuple[int, int]
    format: Format
    scores: bool = False


@dataclass(frozen=True)
class Served:
    """A model in eval mode and what it takes to apply it.

    Args:
        name: shown to people.
        model: on `device`.
        transform: pixels to what the model takes.
        device: where the batches go.
        examples: images to try.
    """

    name: str
    model: MultiTaskModel
    transform: Transform
    device: torch.device
    examples: Sequence[Example] = ()

    def warm_up(self) -> None:
        """Run all tasks once, since the first pass takes longer."""
        image = torch.zeros(3, *self.transform.image_size)
        self.predict(tuple(self.model.tasks), [Request(image, self.transform.image_size, "png")])

    @torch.no_grad()
    def predict(self, tasks: Sequence[str], requests: Sequence[Request]) -> list[Prediction]:
        """All requests in one pass of the model; then one image after the other, which bounds the memory."""
        batch = torch.stack([request.image for request in requests]).to(self.device)
        with timed(self.model, self.device) as watch:
            raw = raw_outputs(self.model, batch, tasks)
        timing = self._timing(watch.milliseconds(), tasks, len(requests))
        return [
            Prediction(
                height=request.size[0],
                width=request.size[1],
                tasks={name: _encoded(self.model.tasks[name], values[index], request) for name, values in raw.items()},
                timing=timing,
            )
            for index, request in enumerate(requests)
        ]

    def _timing(self, parts: dict[str, float], tasks: Sequence[str], batch_size: int) -> Timing:
        tree = self.model.tree
        levels = [parts[level_part(level)] for level in range(tree.num_levels)]
        needed = [node for node in tree.nodes() if not set(tasks).isdisjoint(node.tasks)]
        groups = [sum(node.level == level for node in needed) for level in range(tree.num_levels)]
        return Timing(
            batch_size=batch_size,
            stem_ms=parts[STEM],
            levels_ms=levels,
            nodes=[
                NodeTime(level=node.level, tasks=list(node.tasks), ms=levels[node.level] / groups[node.level])
                for node in needed
            ],
            decoders=[DecoderTime(task=name, ms=parts[decoder_part(name)]) for name in tasks],
            total_ms=sum(parts.values()),
        )

    def describe(self, limits: Limits) -> ModelDescription:
        """What `GET /model` answers."""
        return ModelDescription(
            name=self.name,
            backbone=self.model.spec.name,
            device=str(self.device),
            tasks=[
                TaskDescription(
                    name=task.name,
                    kind=task.target_kind,
                    channels=task.out_channels,
                    picture=FIXED if fixed_range(task) else PICTURES.get(task.target_kind),
                    classes=holds_classes(task),
                    scaled=task.target_kind in ("depth", "values") and not fixed_range(task),
                )
                for task in self.model.tasks.values()
            ],
            tree=[[list(group) for group in groups] for groups in self.model.tree.levels],
            image_size=self.transform.image_size,
            versions=Versions(branchtune=__version__, torch=str(torch.__version__), timm=timm.__version__),
            limits=ServerLimits(
                max_bytes=limits.max_bytes,
                max_pixels=limits.max_pixels,
                max_delay_ms=limits.max_delay_ms,
                max_batch=limits.max_batch,
            ),
        )


def _encoded(task: Task, raw: Tensor, request: Request) -> TaskOutput:
    output = ImageOutput(task, raw, request.size)
    if request.scores and request.format != "png" and task.target_kind == "classes":
        value = output.scores()
    else:
        value = output.prediction()
    array = value.numpy()
    answer = TaskOutput(shape=list(value.shape), low=_finite(array.min()), high=_finite(array.max()))
    if request.format == "npy":
        answer.npy = b64encode(npy_bytes(value)).decode()
    if request.format == "png" and task.dense:
        answer.png = b64encode(image_bytes(picture(task, value), "PNG", compress_level=QUICKLY)).decode()
    if request.format == "json" or not task.dense:
        answer.values = value.tolist()
    return answer


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
