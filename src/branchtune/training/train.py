"""Train a model with Lightning inside a run directory; calling it again continues."""

from __future__ import annotations

import dataclasses
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from branchtune.config import RunConfig
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.training.callbacks import EpochProgress, MetricsTable, StopEarly
from branchtune.training.checkpoint_io import read_checkpoint
from branchtune.training.conflict import GradientConflict
from branchtune.training.memory import Memory, Training
from branchtune.training.model_checkpoint import ModelCheckpoint
from branchtune.training.module import MultiTaskModule, check_checkpoint
from branchtune.training.trainer import MANUAL_KEYS, build_trainer, quiet_lightning

EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # a choice here: small data sets are cached in the training process
    ".*number of training batches.*",
    ".*exists and is not empty.*",  # a run that continues
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 with torch 2.15
    ".*modules? in eval mode at the start.*",  # what is frozen
    ".*training_step. returned .None..*",  # a batch without any label
    ".*could not find the monitored key.*",  # a run without validation has no best checkpoint
)


def train(
    model: MultiTaskModel,
    config: RunConfig,
    train_batches: Any,
    val_batches: Any,
    directory: Path,
    reference: dict[str, float] | None,
    device: torch.device,
    reporter: Reporter,
) -> Training:
    """Train `model` in place; epochs already in `directory/checkpoints/last.ckpt` are not repeated.

    Args:
        config: optimizer, schedule, trainer, early_stopping, evaluate, conflict_every, loggers and seed are used here.
        train_batches, val_batches: loaders.
        directory: of the run.
        reference: headline metric per task that delta_m divides by, or None.
        device: to train on.

    Returns:
        What the training took; its seconds hold those of the epochs that an interrupted run had completed.

    Raises:
        UserError: a loss that is not finite, a checkpoint that does not fit, a trainer argument that does not exist.
        KeyboardInterrupt: interrupted, or told to terminate.
    """
    checkpoints, timer, memory = directory / "checkpoints", Timer(), Memory()
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    module = _module(model, config)
    metrics = MetricsTable(directory / "metrics.csv", reference)
    callbacks: list[L.Callback] = [
        timer,
        memory,
        EpochProgress(reporter, f"train {directory.name}", metrics),
        metrics,
        GradientConflict(directory / "conflict.csv", train_batches, config.data.batch_size, config.conflict_every),
        # In this order: the last checkpoint knows the best, so that one of an epoch that must be repeated is replaced.
        ModelCheckpoint(checkpoints, "best", monitor="score", mode="max", enable_version_counter=False),
        ModelCheckpoint(checkpoints, "last", save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    if config.early_stopping is not None:
        callbacks.insert(0, StopEarly(config.early_stopping))
    with quiet_lightning(), warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer = build_trainer(config, device, callbacks, directory)
        with _keyboard_interrupt():
            trainer.fit(module, train_batches, val_batches, ckpt_path=last if last.exists() else None)
    if config.evaluate == "best" and best.exists():
        checkpoint = read_checkpoint(best)
        check_checkpoint(checkpoint, model)
        module.load_trained_state(checkpoint["state_dict"])
    model.eval()
    return Training(float(timer.time_elapsed()), memory.bytes)


def _module(model: MultiTaskModel, config: RunConfig) -> MultiTaskModule:
    keys, schedule = config.trainer, config.schedule
    if keys.get("fast_dev_run"):
        schedule = dataclasses.replace(schedule, warmup_epochs=0.0)
    manual = {key: keys.get(key) for key in MANUAL_KEYS} if config.optimizer.per_task_gradients else {}
    return MultiTaskModule(
        model,
        config.optimizer,
        schedule,
        config.seed,
        manual.get("gradient_clip_val"),
        manual.get("accumulate_grad_batches") or 1,
    )


@contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Lightning leaves the process with status 1 (SIGINT) or 0 (SIGTERM), and SIGINT ignored: undo both."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)
