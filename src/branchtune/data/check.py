"""Read every sample of a source once: what is wrong, and what the labels hold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from branchtune.data.problems import Problem, left_out
from branchtune.data.source import Source
from branchtune.data.transforms import Sample
from branchtune.errors import UserError, unknown
from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.task import TargetKind

SPLITS = ("train", "val", "test")


@dataclass
class LabelSummary:
    """What one label of one split holds.

    Attributes:
        kind: of the target.
        channels: for classes, how many there are.
        samples: with this label; `empty`: of these, ignored as a whole.
        pixels: all of them; `ignored`: those without a label.
        low, high, total: smallest and largest value and the sum, of values and depth.
        classes: pixels by class.
    """

    kind: TargetKind
    channels: int
    samples: int = 0
    empty: int = 0
    pixels: int = 0
    ignored: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    classes: np.ndarray = field(default_factory=lambda: np.zeros(IGNORED_CLASS, np.int64))

    def add(self, target: Tensor) -> None:
        plane = target[0] if self.kind == "normals" else target
        known = plane != IGNORED_CLASS if self.kind == "classes" else ~plane.isnan()
        self.samples += 1
        self.empty += not known.any()
        self.pixels += plane.numel()
        self.ignored += plane.numel() - int(known.sum())
        if self.kind == "classes":
            self.classes += np.bincount(plane[known].numpy().ravel(), minlength=IGNORED_CLASS)
        elif self.kind != "normals" and known.any():
            values = plane[known].double()
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            self.total += float(values.sum())

    @property
    def mean(self) -> float:
        return self.total / max(1, self.pixels - self.ignored)

    @property
    def shares(self) -> np.ndarray:
        """Of each class, in the labelled pixels."""
        return self.classes[: self.channels] / max(1, self.classes.sum())


@dataclass
class SplitSummary:
    """What one split holds.

    Attributes:
        split: its name.
        listed: ids in its list; `usable`: samples without any problem.
        problems: everything found.
        labels: by name.
        sizes: height and width of every image.
        examples: the first few usable samples.
    """

    split: str
    listed: int = 0
    usable: int = 0
    problems: list[Problem] = field(default_factory=list)
    labels: dict[str, LabelSummary] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    examples: list[Sample] = field(default_factory=list)


def check_source(
    source: Source,
    splits: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    examples: int = 0,
    workers: int = 0,
    begin: Callable[[str, int], Callable[[], Any]] | None = None,
) -> list[SplitSummary]:
    """Look at every split of a source.

    Args:
        source: of samples.
        splits: None for all.
        limit: read only so many samples of each split; lists and missing files are checked completely.
        examples: keep so many samples of each split.
        workers: processes that read.
        begin: called with the name and the number of samples of each split; returns what to call after each sample.

    Raises:
        UserError: an unknown split.
    """
    wanted = [split for split in SPLITS if _listed(source, split)] if splits is None else list(splits)
    for split in wanted:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    return [_check_split(source, split, limit, examples, workers, begin) for split in wanted]


def _listed(source: Source, split: str) -> bool:
    """Whether a split should be there: only test is optional."""
    return split != "test" or source.has_split(split)


def _check_split(
    source: Source,
    split: str,
    limit: int | None,
    examples: int,
    workers: int,
    begin: Callable[[str, int], Callable[[], Any]] | None,
) -> SplitSummary:
    summary = SplitSummary(split)
    try:
        ids = source.listed(split)
        summary.problems = source.describe_split(split)
    except UserError as error:
        summary.problems = [Problem(split, "", "bad list", str(error))]
        return summary
    summary.listed = len(ids)
    summary.labels = {name: LabelSummary(source.kinds[name], channels) for name, channels in source.labels.items()}
    gone = {problem.id for problem in summary.problems if problem.kind == "missing file"}
    unusable = left_out(summary.problems)
    tried = list(dict.fromkeys(ids))[:limit]
    advance = begin(split, len(tried)) if begin else None
    for id_, sample, reasons in DataLoader(_Raw(source, split, tried, gone), batch_size=None, num_workers=workers):
        summary.problems += [Problem(split, id_, "bad content", reason) for reason in reasons]
        if sample:
            _add(summary, sample, id_ not in unusable, examples)
        if advance:
            advance()
    return summary


def _add(summary: SplitSummary, sample: Sample, usable: bool, examples: int) -> None:
    summary.usable += usable
    summary.sizes.append((sample["image"].shape[-2], sample["image"].shape[-1]))
    for name, label in summary.labels.items():
        if name in sample:
            label.add(sample[name])
    if len(summary.examples) < examples:
        # Out of a worker's shared memory, of which there is little.
        summary.examples.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in sample.items()})


class _Raw(Dataset[tuple[str, Sample, list[str]]]):
    """Of every id, the raw sample, or an empty one and everything that is wrong with its files."""

    def __init__(self, source: Source, split: str, ids: Sequence[str], incomplete: set[str]) -> None:
        self.source, self.split, self.ids, self.incomplete = source, split, ids, incomplete

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[str, Sample, list[str]]:
        id_ = self.ids[index]
        if id_ not in self.incomplete:
            try:
                return id_, self.source.read(id_, self.split), []
            except UserError as error:
                return id_, {}, _reasons(self.source, self.split, id_) or [str(error)]
        return id_, {}, _reasons(self.source, self.split, id_)


def _reasons(source: Source, split: str, id_: str) -> list[str]:
    """What is wrong with image and labels of a sample, each by itself; files that are missing are named elsewhere."""
    found: dict[str, None] = {}

    def attempt(read: Callable[..., Any], *arguments: Any) -> None:
        try:
            read(*arguments)
        except UserError as error:
            found[str(error)] = None

    image = _with_labels(source, {})
    image_is_missing = bool(image.missing([id_]))
    if not image_is_missing:
        attempt(image.read, id_, split)
    for name, channels in source.labels.items():
        alone = _with_labels(source, {name: channels})
        if len(alone.missing([id_])) > image_is_missing:
            continue
        attempt(alone.read_label, id_, name, split)
        if not image_is_missing:
            attempt(alone.read, id_, split)
    return list(found)


def _with_labels(source: Source, labels: dict[str, int]) -> Source:
    changed = copy.copy(source)
    changed.labels = labels
    return changed
