"""Whether the tasks' gradients point in the same direction at the nodes that they share, recorded during training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from branchtune.atomic import write_text
from branchtune.batch import read_batch
from branchtune.model import MultiTaskModel
from branchtune.modes import modes_kept
from branchtune.tables.csv_text import csv_text
from branchtune.training.losses import task_losses
from branchtune.training.module import MultiTaskModule
from branchtune.training.task_gradients import task_gradients
from branchtune.tree import Node

IMAGES = 8
# Of the training's passes over images, where the configuration does not say how often.
SHARE = 0.02


class GradientConflict(L.Callback):
    """`conflict.csv`: after an epoch, the cosine of every two tasks' gradients at every node that they share.

    The gradients are those of the unweighted losses on the same few training images in eval mode. Nothing that the
    training reads changes: neither gradients nor modes, statistics or random numbers. Only the first process records.

    Args:
        path: of the CSV file.
        batches: the training loader, from whose data set the images are.
        batch_size: no more images than this, so that the record needs no more memory than a step.
        every: epochs from one record to the next; 0 for none, None for as often as `affordable` says.
    """

    def __init__(self, path: Path, batches: Any, batch_size: int, every: int | None) -> None:
        self.path, self.batches, self.batch_size, self.every = path, batches, batch_size, every
        self.rows: list[dict[str, Any]] = []
        self._batch: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, MultiTaskModule)
        if self.every == 0 or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        model, samples = module.model, len(self.batches.dataset)
        images, every = min(IMAGES, self.batch_size, samples), self.every
        if every is None:
            per_epoch = int(trainer.num_training_batches) * self.batch_size
            images, every = affordable(per_epoch, len(model.train_tasks), images)
        if (trainer.current_epoch + 1) % every or not shared_nodes(model):
            return
        with _random_numbers_kept(module.device):
            if self._batch is None:
                chosen = [index * samples // images for index in range(images)]
                self._batch = self.batches.collate_fn([self.batches.dataset[index] for index in chosen])
            found = gradient_cosines(model, self._batch)
        self.rows += [{"epoch": trainer.current_epoch, **row} for row in found]
        write_text(self.path, csv_text(self.rows, digits=6))


def affordable(samples: int, tasks: int, images: int) -> tuple[int, int]:
    """Of how many images, and after every how many epochs, a record costs at most 2 % of the training.

    A record is one pass forward and one backward per task, an epoch one forward and one backward for every sample.

    Args:
        samples: training images of an epoch.
        tasks: that train.
        images: at most this many.
    """
    allowed, each = SHARE * 2 * samples, 1 + tasks
    within = min(images, int(allowed / each))
    if within >= min(2, images):
        return within, 1
    images = min(2, images)
    return images, math.ceil(images * each / allowed)


def shared_nodes(model: MultiTaskModel) -> dict[Node, list[nn.Parameter]]:
    """The nodes of several tasks with their adapter parameters, where these train."""
    nodes = {
        node: [p for p in model.backbone.adapters[node.key].parameters() if p.requires_grad]
        for node in model.tree.nodes()
        if len(node.tasks) > 1 and node.key in model.backbone.users
    }
    return {node: parameters for node, parameters in nodes.items() if parameters}


def gradient_cosines(model: MultiTaskModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The cosine of every two tasks' gradients at every node that they share, in eval mode.

    Args:
        model: left as it is.
        batch: of `Collate`.

    Returns:
        Rows of `level`, `node`, `task_a`, `task_b`, `cosine`; without pairs of which a task has no label or gradient.
    """
    nodes = shared_nodes(model)
    parameters = [parameter for own in nodes.values() for parameter in own]
    with torch.enable_grad(), modes_kept(model):
        model.eval()
        found = read_batch(batch, model.trained_tasks, like=next(model.parameters()))
        if not found.targets:
            return []
        outputs = model(found.images, list(found.targets))
        losses = task_losses(outputs, found.targets | {"image": found.images}, model.trained_tasks)
        gradients = task_gradients(losses, parameters)
    rows, start = [], 0
    for node, own in nodes.items():
        end = start + len(own)
        vectors = {task: _unit(parts[start:end], own) for task, parts in gradients.items()}
        flat = {task: vector for task, vector in vectors.items() if vector is not None}
        start = end
        for a, b in itertools.combinations([task for task in node.tasks if task in flat], 2):
            cosine = float(flat[a] @ flat[b])
            rows.append({"level": node.level, "node": node.key, "task_a": a, "task_b": b, "cosine": cosine})
    return rows


def _unit(parts: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """The gradient of one node's parameters as a vector of length one; None where it is zero or not finite."""
    pairs = zip(parts, parameters, strict=True)
    flat = torch.cat([(torch.zeros_like(own) if part is None else part).flatten() for part, own in pairs])
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    norm = flat.norm()
    return flat / norm if bool(norm > 0) and bool(norm.isfinite()) else None


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
