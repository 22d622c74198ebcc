"""The Lightning Trainer of a run: the user's keys over our defaults, refused where the two cannot both hold."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import lightning.pytorch.loggers as lightning_loggers
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from branchtune.config import RunConfig
from branchtune.errors import UserError, unknown
from branchtune.training.checkpoint_io import AtomicCheckpointIO
from branchtune.training.processes import trainer_arguments

# Arguments of the Trainer that the run sets itself, and what to use instead.
RESERVED = {
    "callbacks": "the run has its own, see early_stopping and evaluate",
    "logger": "name loggers under the key loggers",
    "plugins": "checkpoints are written by ours",
    "default_root_dir": "the run directory is output/name",
    "enable_checkpointing": "a run that resumes needs its checkpoints",
    "use_distributed_sampler": "batches are shared by ours",
    "strategy": "runs of several devices use DDP, with options that tasks without labels need",
    "barebones": "it leaves out what a run writes",
}
# What keeps the weights as they are, by all names that Lightning has for it; other precisions convert the model, whose
# frozen weights are then no longer those of the backbone, and round the labels of a batch with its images.
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
# What Lightning must not do under manual optimisation, and `MultiTaskModule` then does.
MANUAL_KEYS = ("gradient_clip_val", "accumulate_grad_batches")


def build_trainer(
    config: RunConfig, device: torch.device, callbacks: Sequence[L.Callback], directory: Path
) -> L.Trainer:
    """The Trainer. Nothing is written before it fits.

    Raises:
        UserError: a key or a value that does not exist, would fail later or silently do nothing, or is the run's own.
    """
    _check_keys(config)
    arguments: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        **config.trainer,
        "accelerator": device.type,
        "devices": [device.index or 0] if device.type == "cuda" else 1,
        "callbacks": list(callbacks),
        "logger": [_logger(name, directory) for name in config.loggers] or False,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": directory,
        "use_distributed_sampler": False,
        **trainer_arguments(device, config.trainer),
    }
    if config.optimizer.per_task_gradients:
        arguments = {key: value for key, value in arguments.items() if key not in MANUAL_KEYS}
    try:
        with quiet_lightning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            return L.Trainer(**arguments)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside, Lightning's log lines below warnings are silenced."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_keys(config: RunConfig) -> None:
    """Refuse keys and values of `trainer`, and names of `loggers`, that would fail later or silently do nothing."""
    keys = config.trainer
    known = [name for name in inspect.signature(L.Trainer).parameters if name not in RESERVED]
    for key in keys:
        if key in RESERVED:
            raise UserError(f"trainer.{key} is not yours to set: {RESERVED[key]}")
        if key not in known:
            raise unknown("trainer key", key, known)
    for name in config.loggers:
        loggers = [key for key in vars(lightning_loggers) if key.endswith("Logger")]
        if name not in loggers:
            raise unknown("logger", name, loggers)
    _check_length(keys)
    _check_precision(keys)
    _check_validation(config)
    if config.optimizer.per_task_gradients:
        _check_manual(config)


def _check_length(keys: dict[str, Any]) -> None:
    epochs, steps = keys.get("max_epochs"), keys.get("max_steps", -1)
    for name, value in (("max_epochs", epochs), ("max_steps", steps)):
        if value is not None and (not isinstance(value, int) or value == 0 or value < -1):
            raise UserError(f"trainer.{name}={value!r}: must be a number of at least 1, or -1 for no limit")
    if epochs in (None, -1) and steps == -1 and not keys.get("fast_dev_run"):
        raise UserError("trainer sets no end of the training: give trainer.max_epochs or trainer.max_steps")
    if keys.get("limit_train_batches") == 0:
        raise UserError("trainer.limit_train_batches=0 leaves nothing to train on: give at least 1, or null")


def _check_precision(keys: dict[str, Any]) -> None:
    precision = keys.get("precision")
    if precision is not None and str(precision) not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision}: a run takes 32-true, bf16-mixed or 16-mixed; what else Lightning knows "
            "converts the frozen backbone and the labels, too"
        )


def _check_validation(config: RunConfig) -> None:
    keys = config.trainer
    interval = keys.get("val_check_interval", 1.0)
    if interval is not None and not (isinstance(interval, float) and interval == 1.0):
        raise UserError(
            "trainer.val_check_interval: a run validates, and can resume, between epochs only; set "
            "trainer.check_val_every_n_epoch instead"
        )
    epochs, every = keys.get("max_epochs"), keys.get("check_val_every_n_epoch", 1)
    too_late = isinstance(epochs, int) and isinstance(every, int) and 0 < epochs < every
    for key, value in (("early_stopping", config.early_stopping), ("evaluate", config.evaluate)):
        if value in (None, "last"):
            continue
        if keys.get("limit_val_batches") == 0:
            raise UserError(f"{key}={value} needs validation: leave trainer.limit_val_batches=0 out")
        if too_late and not keys.get("fast_dev_run"):
            raise UserError(
                f"{key}={value} needs validation, and none of {epochs} epochs is followed by one: set "
                f"trainer.check_val_every_n_epoch={every} to {epochs} or less"
            )


def _check_manual(config: RunConfig) -> None:
    keys, name = config.trainer, type(config.optimizer).__name__
    precision = str(keys.get("precision"))
    if "16" in precision and "bf16" not in precision:
        raise UserError(f"trainer.precision={precision} scales losses, which {name} does not support: use bf16-mixed")
    if keys.get("gradient_clip_algorithm") not in (None, "norm"):
        raise UserError(f"trainer.gradient_clip_algorithm: {name} clips by norm only, leave the key out")


def _logger(name: str, directory: Path) -> Any:
    try:
        return getattr(lightning_loggers, name)(save_dir=str(directory), name="logs", version="")
    except (ImportError, TypeError) as error:
        raise UserError(f"logger {name} cannot be used here: {' '.join(str(error).split())}") from error
