"""Fit decoders on the frozen backbone: the state in which affinity is measured, and from which training starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from branchtune.batch import read_batch
from branchtune.decoding import decode
from branchtune.errors import UserError
from branchtune.finite import check_finite
from branchtune.model import MultiTaskModel
from branchtune.modes import modes_kept

ADVICE = "lower the learning rate, or check these labels"


@torch.inference_mode(False)
@torch.enable_grad()
def fit_decoders(
    model: MultiTaskModel,
    batches: Iterable[Mapping[str, Any]],
    steps: int,
    lr: float,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    inputs: Collection[str] = (),
    kind: Literal["constant", "cosine"] = "constant",
) -> int:
    """Train the decoders of `model.train_tasks` alone, with AdamW without weight decay on the weighted sum of losses.

    Args:
        model: whose backbone runs in eval mode without gradients; its adapters, if any, act but do not train.
        batches: `{"id", "image" [B, 3, H, W], "<task>": [B, ...]}`; begun anew when they run out. A task without any
            label in a batch is skipped.
        steps: optimiser steps.
        lr: learning rate.
        on_step: called after every step with its number from 1 and the tasks' losses.
        inputs: keys of the batch that are passed to the backbone as keyword inputs.
        kind: of the schedule: "cosine" falls to zero, so that the last batches leave no trace in the decoders, and
            affinity measured with them does not depend on the seed.

    Returns:
        The number of images that were run.

    Raises:
        UserError: no batch at all, a label that does not fit, or a loss that is not finite.
    """
    parameters = [p for name in model.train_tasks for p in model.decoders[name].parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    images = 0
    try:
        with modes_kept(model):
            model.backbone.eval()
            model.decoders.train()
            for step, batch in enumerate(repeat(batches, steps), start=1):
                losses = decoder_losses(model, batch, inputs)
                check_finite("loss", losses, batch.get("id", ()), f"at step {step} of fitting the decoders", ADVICE)
                if losses:
                    total = torch.stack([model.tasks[name].weight * loss for name, loss in losses.items()]).sum()
                    optimizer.zero_grad(set_to_none=True)
                    total.backward()
                    optimizer.step()
                if kind == "cosine":
                    optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
                images += len(batch["image"])
                if on_step:
                    on_step(step, {name: loss.item() for name, loss in losses.items()})
    finally:
        optimizer.zero_grad(set_to_none=True)
    return images


def repeat(batches: Iterable[Mapping[str, Any]], steps: int) -> Iterator[Mapping[str, Any]]:
    """`steps` batches, from the beginning again when they run out; fewer only if they cannot be iterated again."""
    done = 0
    while done < steps:
        before = done
        for batch in batches:
            yield batch
            done += 1
            if done == steps:  # at once: a further batch would be loaded for nothing
                return
        if done == 0:
            raise UserError("the loader gives no batch: check the size of the data set and of the batches")
        if done == before:
            return


def decoder_losses(model: MultiTaskModel, batch: Mapping[str, Any], inputs: Collection[str] = ()) -> dict[str, Tensor]:
    """Losses of the tasks that train and have labels in the batch, with a graph through the decoders only."""
    found = read_batch(batch, model.trained_tasks, like=next(model.decoders.parameters()), inputs=inputs)
    if not found.targets:
        return {}
    with torch.no_grad():
        features = model.backbone(found.images, list(found.targets), found.inputs)
    size = (found.images.shape[2], found.images.shape[3])
    losses = {}
    for name, target in found.targets.items():
        task = model.tasks[name]
        losses[name] = task.loss(decode(task, model.decoders[name], features[name], size), target)
    return losses
