"""Means, deviations and paired differences over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from branchtune.comparison.methods import SINGLE
from branchtune.comparison.result import Comparison
from branchtune.evaluation.delta_m import delta_m


@dataclass(frozen=True)
class Spread:
    """Values of one number over seeds.

    Attributes:
        mean, deviation: sample standard deviation, NaN for one seed.
        count: number of seeds.
    """

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), deviation, len(values))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.count)

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval of the mean: t_{0.975, count - 1} standard errors.

        Student's t, and not twice the standard error: with three seeds it is 4.3, with two 12.7 standard errors.
        """
        return math.nan if self.count < 2 else float(stdtrit(self.count - 1, 0.975)) * self.error


@dataclass(frozen=True)
class Row:
    """One method of the table.

    Attributes:
        metrics: headline metric by task.
        delta_m: percent over the reference.
        parameters: trainable ones by owner: adapters, extras, decoders, backbone.
        macs: backbone and decoders, per image, all tasks; of the first seed, as planned trees may differ.
        ms_per_image: inference of all tasks, mean over seeds; of the first seed's single-task models together.
        seconds: of training.
        memory: bytes in training, or None.
        groups: groups per level, of the first seed.
    """

    method: str
    metrics: dict[str, Spread]
    delta_m: Spread
    parameters: dict[str, int]
    macs: dict[str, int]
    ms_per_image: float
    seconds: Spread
    memory: int | None
    groups: list[int]

    @property
    def inside(self) -> int:
        """What trains inside the backbone: adapters, extras, or the backbone itself."""
        return sum(self.parameters[owner] for owner in ("adapters", "extras", "backbone"))


def rows(comparison: Comparison) -> list[Row]:
    """The single-task models first, then every method in the order of the comparison."""
    return [_single(comparison), *(_row(comparison, method) for method in comparison.runs)]


def _row(comparison: Comparison, method: str) -> Row:
    results = comparison.runs[method]
    first = results[0]
    return Row(
        method,
        {task: Spread.of([r.heads[task] for r in results]) for task in first.headline},
        Spread.of(delta_ms(comparison, method)),
        {owner: first.parameters[owner] for owner in ("adapters", "extras", "decoders", "backbone")},
        {part: first.macs[part] for part in ("backbone", "decoders")},
        statistics.fmean(r.ms_per_image for r in results),
        Spread.of([r.train_seconds for r in results]),
        first.train_memory,
        first.groups,
    )


def _single(comparison: Comparison) -> Row:
    settings = comparison.reference.settings
    per_seed = [sum(run["train_seconds"] for run in runs) for runs in zip(*settings["runs"].values(), strict=True)]
    return Row(
        SINGLE,
        {task: Spread.of(values) for task, values in settings["values"].items()},
        Spread.of(delta_ms(comparison, SINGLE)),
        settings["parameters"],
        settings["macs"],
        settings["ms_per_image"],
        Spread.of(per_seed),
        settings.get("train_memory"),
        [],
    )


def delta_ms(comparison: Comparison, method: str) -> list[float]:
    """delta_m of every seed, in percent over the mean of the single-task models."""
    first = next(iter(comparison.runs.values()))[0]
    if method == SINGLE:
        values = comparison.reference.settings["values"]
        per_seed = [dict(zip(values, seed, strict=True)) for seed in zip(*values.values(), strict=True)]
    else:
        per_seed = [r.heads for r in comparison.runs[method]]
    return [delta_m(heads, comparison.reference.metrics, first.higher_is_better) for heads in per_seed]


def advantage(comparison: Comparison, method: str, other: str) -> Spread:
    """delta_m of `method` minus that of `other`, paired by seed."""
    return Spread.of([a - b for a, b in zip(delta_ms(comparison, method), delta_ms(comparison, other), strict=True)])
