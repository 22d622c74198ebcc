"""Batches of a loader -> per-sample gradients -> an estimator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from branchtune.affinity.estimator import Estimator
from branchtune.affinity.gradients import Batch, PerSampleGradients
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel

Progress = Callable[[str, int, int], None]


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
            for name, part in parts.items():
                _check_finite(name, part, batch.ids[rows])
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
    like = next(model.decoders.parameters())
    images = raw["image"][:limit].to(like)
    targets = {name: raw[name][:limit].to(like.device) for name in model.tasks if name in raw}
    labelled = {name: model.tasks[name].labelled(target) for name, target in targets.items()}
    present = [name for name, rows in labelled.items() if bool(rows.any())]
    return Batch(
        images,
        {name: targets[name] for name in present},
        {name: labelled[name] for name in present},
        {key: raw[key][:limit].to(like.device) for key in inputs},
        list(raw.get("id", range(len(images))))[:limit],
    )


def _check_finite(task: str, gradients: Tensor, ids: Sequence[object]) -> None:
    bad = ~gradients.isfinite().all(dim=1)
    if bool(bad.any()):
        raise UserError(
            f"the gradient of task {task!r} is not finite on sample {ids[int(bad.nonzero()[0])]!r}: check its labels "
            "and its loss, or measure in float32"
        )
