"""Batches of a loader -> per-sample gradients -> an estimator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch

from branchtune.affinity.estimator import Estimator
from branchtune.affinity.gradients import PerSampleGradients
from branchtune.batch import Batch, read_batch
from branchtune.errors import UserError
from branchtune.finite import check_finite
from branchtune.model import MultiTaskModel

Progress = Callable[[str, int, int], None]
ADVICE = "check its labels and its loss, or measure in float32"


def collect(
    model: MultiTaskModel,
    gradients: PerSampleGradients,
    estimator: Estimator,
    loader: Iterable[Mapping[str, Any]],
    samples: int,
    inputs: Collection[str],
    progress: Progress | None,
) -> tuple[int, dict[str, int]]:
    """Run the gradients of up to `samples` images through the estimator; images, and labelled samples per task."""
    seen, counts = 0, dict.fromkeys(model.tasks, 0)
    for raw in loader:
        batch = to_batch(model, raw, samples - seen, inputs)
        for rows, parts in gradients.chunks(batch) if batch.targets else ():
            check_finite("gradient", parts, batch.ids[rows], "", ADVICE)
            like = next(iter(parts.values()))
            stacked = torch.stack([parts.get(name, torch.zeros_like(like)) for name in model.tasks])
            labelled = torch.stack(
                [
                    batch.labelled[name][rows] if name in parts else like.new_zeros(len(like), dtype=torch.bool)
                    for name in model.tasks
                ]
            )
            estimator.add(stacked.to(torch.promote_types(stacked.dtype, torch.float32)), labelled)
        for name, labelled in batch.labelled.items():
            counts[name] += int(labelled.sum())
        seen += len(batch.images)
        if progress:
            progress("affinity", seen, samples)
        if seen >= samples:
            break
    for name, count in counts.items():
        if count < 2:
            raise UserError(
                f"task {name!r} has {count} labelled samples among the {seen} images of the loader: affinity compares "
                "different samples and needs 2 of every task"
            )
    return seen, counts


def to_batch(model: MultiTaskModel, raw: Mapping[str, Any], limit: int, inputs: Collection[str]) -> Batch:
    """The first `limit` samples, on the model's device and in its precision."""
    return read_batch(raw, model.tasks, like=next(model.decoders.parameters()), inputs=inputs, limit=limit)
