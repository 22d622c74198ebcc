"""The model of a server: loaded once, described, and run on batches of prepared images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from torch import Tensor

from branchtune._version import __version__
from branchtune.data.transforms import Transform
from branchtune.model import MultiTaskModel
from branchtune.pictures.colour import fixed_range
from branchtune.run.inference import raw_outputs
from branchtune.serving.examples import Example
from branchtune.serving.limits import Limits
from branchtune.serving.schemas import (
    DecoderTime,
    ModelDescription,
    NodeTime,
    ServerLimits,
    TaskDescription,
    Timing,
    Versions,
)
from branchtune.serving.timing import STEM, decoder_part, level_part, timed
from branchtune.tasks.targets import holds_classes

PICTURES = {
    "classes": "one colour per class, class 0 is dark",
    "depth": "near is bright, scaled to the range of this image",
    "normals": "red, green and blue are x right, y down and z forward, from -1 to 1",
    "values": "high is bright, scaled to the range of this image",
}
FIXED = "black is 0, white is 1"


@dataclass(frozen=True)
class Passed:
    """What a pass of the model returned for one of its images.

    Args:
        raw: by task what its decoder returned, on the model's device: `[C, h, w]`, or `[C]`.
        timing: of the pass.
    """

    raw: dict[str, Tensor]
    timing: Timing


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
        self.predict(tuple(self.model.tasks), [torch.zeros(3, *self.transform.image_size)])

    @torch.no_grad()
    def predict(self, tasks: Sequence[str], images: Sequence[Tensor]) -> list[Passed]:
        """All images `[3, h, w]` in one pass of the model."""
        batch = torch.stack(list(images)).to(self.device)  # outside of what is timed
        with timed(self.model, self.device) as watch:
            raw = raw_outputs(self.model, batch, tasks)
        timing = self._timing(watch.milliseconds(), tasks, len(images))
        return [Passed({name: values[index] for name, values in raw.items()}, timing) for index in range(len(images))]

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
