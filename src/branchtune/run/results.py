"""What a run ends with: metrics, gains over the reference, parameters by owner, cost."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from branchtune.atomic import write_json
from branchtune.config import RunConfig
from branchtune.errors import UserError
from branchtune.evaluation.delta_m import relative_gains
from branchtune.evaluation.references import Reference
from branchtune.json_file import read_json
from branchtune.model import MultiTaskModel
from branchtune.run.manifest import hardware, versions
from branchtune.training.memory import Training

FORMAT = 1


@dataclass(frozen=True)
class Results:
    """The numbers of one run; every one says what it counts.

    Attributes:
        headline: metric name by task; `higher_is_better`: its direction.
        metrics: per task, all metrics and the loss.
        parameters: by owner: adapters, extras, decoders, backbone (full fine-tuning), frozen.
        macs: `backbone_plain` (one plain pass), `backbone` (with adapters and branches), `decoders`; per image.
        ms_per_image: inference of all tasks.
        train_memory: bytes, see `Training`; None in results of older versions.
        reference: id of what `gains` and `delta_m` (percent) divide by, or None.
        groups: groups per level.
    """

    name: str
    method: str
    seed: int
    headline: dict[str, str]
    higher_is_better: dict[str, bool]
    metrics: dict[str, dict[str, float]]
    parameters: dict[str, int]
    macs: dict[str, int]
    ms_per_image: float
    train_seconds: float
    reference: str | None
    gains: dict[str, float] | None
    delta_m: float | None
    groups: list[int]
    tree: dict[str, Any]
    hardware: str
    versions: dict[str, str]
    train_memory: int | None = None
    format: int = field(default=FORMAT)

    @classmethod
    def of(
        cls,
        config: RunConfig,
        model: MultiTaskModel,
        metrics: dict[str, dict[str, float]],
        reference: Reference | None,
        training: Training,
        cost: dict[str, Any],
    ) -> Results:
        results = cls(
            name=config.name,
            method=config.method,
            seed=config.seed,
            headline={name: task.headline for name, task in model.tasks.items()},
            higher_is_better={name: task.higher_is_better for name, task in model.tasks.items()},
            metrics=metrics,
            parameters=model.count_parameters(),
            macs=cost["macs"],
            ms_per_image=cost["ms_per_image"],
            train_seconds=training.seconds,
            train_memory=training.memory,
            reference=None,
            gains=None,
            delta_m=None,
            groups=list(model.tree.group_counts),
            tree=model.tree.to_json(),
            hardware=hardware(next(model.parameters()).device),
            versions=versions(),
        )
        return results if reference is None else results.compared_with(reference)

    def compared_with(self, reference: Reference) -> Results:
        """The same numbers with gains and delta_m over `reference`; None where a task had no label to evaluate on."""
        gains = None
        if all(math.isfinite(value) for value in self.heads.values()):
            gains = relative_gains(self.heads, reference.metrics, self.higher_is_better)
        mean = None if gains is None else math.fsum(gains.values()) / len(gains)
        return replace(self, reference=reference.id, gains=gains, delta_m=mean)

    @property
    def heads(self) -> dict[str, float]:
        return {task: self.metrics[task][name] for task, name in self.headline.items()}

    def value_of(self, task: str, metric: str) -> float | None:
        """A metric by its name, which need not be the task's headline here; None where the run has no such task.

        Raises:
            UserError: it has the task without this metric, so that it stands beside no run that is judged by it.
        """
        values = self.metrics.get(task)
        if values is None:
            return None
        if metric not in values:
            raise UserError(
                f"run {self.name!r} has no {metric} of {task!r}, by which the run beside it is judged: "
                "give runs of the same tasks, or each alone"
            )
        return values[metric]

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """For JSON, which has no NaN: a metric without any label is null."""
        metrics = {task: {k: v if math.isfinite(v) else None for k, v in m.items()} for task, m in self.metrics.items()}
        return {**asdict(self), "metrics": metrics}

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read `results.json`.

        Raises:
            UserError: it is missing, damaged or of a newer format.
        """
        content = read_json(path, missing="is this a finished run?", damaged="delete it, the run makes it again")
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> Results:
        try:
            if content["format"] > FORMAT:
                raise UserError(
                    f"{name} has format {content['format']}, this version reads {FORMAT}: update branchtune"
                )
            metrics = {
                task: {key: math.nan if value is None else value for key, value in values.items()}
                for task, values in content["metrics"].items()
            }
            return cls(**{**content, "metrics": metrics})
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{name} is damaged ({error}): delete it, the run makes it again") from error


@torch.no_grad()
def measure_cost(model: MultiTaskModel, config: RunConfig) -> dict[str, Any]:
    """Multiply-accumulates by part, and milliseconds per image (median of five passes over a batch of eight)."""
    device = next(model.parameters()).device
    images = torch.zeros(8, 3, *config.data.image_size, device=device)
    features = model.backbone(images[:1])
    with FlopCounterMode(display=False) as counter:
        for name, decoder in model.decoders.items():
            decoder(features[name], tuple(config.data.image_size))
    cost = model.cost()
    macs = {"backbone_plain": cost.backbone_macs, "backbone": cost.macs, "decoders": counter.get_total_flops() // 2}
    model(images)
    times = []
    for _ in range(5):
        _synchronise(device)
        start = time.perf_counter()
        model(images)
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return {"macs": macs, "ms_per_image": 1000 * statistics.median(times) / len(images)}


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
