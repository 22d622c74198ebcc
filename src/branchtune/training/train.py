"""Train a model with Lightning inside a run directory; calling it again continues."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import lightning.pytorch.loggers as lightning_loggers
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from branchtune.config import RunConfig
from branchtune.errors import UserError, unknown
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.training.callbacks import EpochProgress, MetricsTable
from branchtune.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from branchtune.training.module import MultiTaskModule, check_checkpoint

MANUAL_KEYS = ("gradient_clip_val", "accumulate_grad_batches")
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # a choice here: small data sets are cached in the training process
    ".*number of training batches.*",
    ".*exists and is not empty.*",  # a run that continues
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 with torch 2.15
)


def train(
    model: MultiTaskModel,
    config: RunConfig,
    train_batches: Any,
    val_batches: Any,
    directory: Path,
    reference: dict[str, float] | None,
    reporter: Reporter,
) -> None:
    """Train `model` in place; epochs already in `directory/checkpoints/last.ckpt` are not repeated.

    Args:
        config: optimizer, schedule, trainer, early_stopping, evaluate, loggers and seed are used here.
        train_batches, val_batches: loaders.
        directory: of the run.
        reference: headline metric per task that delta_m divides by, or None.

    Raises:
        UserError: a loss that is not finite, a checkpoint that does not fit, a trainer argument that does not exist.
    """
    settings = dict(config.trainer)
    manual = {key: settings.pop(key) for key in MANUAL_KEYS if key in settings and config.optimizer.per_task_gradients}
    if (
        config.optimizer.per_task_gradients
        and "16" in str(settings.get("precision"))
        and "bf16" not in str(settings.get("precision"))
    ):
        raise UserError("precision 16-mixed scales losses, which per-task gradients do not support: use bf16-mixed")
    schedule = (
        dataclasses.replace(config.schedule, warmup_epochs=0.0) if settings.get("fast_dev_run") else config.schedule
    )
    module = MultiTaskModule(
        model,
        config.optimizer,
        schedule,
        config.seed,
        manual.get("gradient_clip_val"),
        manual.get("accumulate_grad_batches") or 1,
    )
    checkpoints = directory / "checkpoints"
    last = checkpoints / "last.ckpt"
    keeper = ModelCheckpoint(
        checkpoints, filename="best", monitor="score", mode="max", save_last=True, enable_version_counter=False
    )
    callbacks: list[L.Callback] = [
        EpochProgress(reporter, f"train {directory.name}"),
        MetricsTable(directory / "metrics.csv", reference),
        keeper,
    ]
    if config.early_stopping is not None:
        callbacks.append(EarlyStopping("score", mode="max", patience=config.early_stopping))
    trainer = _trainer(settings, callbacks, config, directory)
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, train_batches, val_batches, ckpt_path=last if last.exists() else None, weights_only=True)
    if config.evaluate == "best" and (checkpoints / "best.ckpt").exists():
        checkpoint = read_checkpoint(checkpoints / "best.ckpt")
        check_checkpoint(checkpoint, model)
        module.load_trained_state(checkpoint["state_dict"])
    model.eval()


def _trainer(settings: dict[str, Any], callbacks: list[L.Callback], config: RunConfig, directory: Path) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    defaults: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "default_root_dir": directory,
        "use_distributed_sampler": False,
        "logger": [_logger(name, directory) for name in config.loggers] or False,
        "plugins": [AtomicCheckpointIO()],
    }
    try:
        return L.Trainer(**{**defaults, **settings}, callbacks=callbacks)
    except TypeError as error:
        raise UserError(f"trainer: {error} (its keys are the arguments of lightning.Trainer)") from error


def _logger(name: str, directory: Path) -> Any:
    known = [key for key in vars(lightning_loggers) if key.endswith("Logger")]
    if name not in known:
        raise unknown("logger", name, known)
    return getattr(lightning_loggers, name)(save_dir=str(directory), name="logs", version="")
