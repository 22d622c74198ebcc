"""What happens around the epochs: progress, metrics.csv, the score that checkpoints are chosen by, stopping early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from branchtune.atomic import write_text
from branchtune.evaluation.delta_m import delta_m
from branchtune.evaluation.evaluate import headlines
from branchtune.joint import joint_step
from branchtune.progress import Reporter
from branchtune.tables.csv_text import csv_text
from branchtune.training.live_table import LiveTable
from branchtune.training.module import MultiTaskModule


class EpochProgress(L.Callback):
    """One step of the reporter per batch, of training and validation, over all epochs that are left.

    Args:
        reporter: on a terminal it shows the tasks' numbers above its bar.
        title: of the step.
        metrics: where these numbers come from.
    """

    def __init__(self, reporter: Reporter, title: str, metrics: MetricsTable) -> None:
        self.reporter, self.title, self.metrics = reporter, title, metrics
        self._step: Any = None
        self._advance: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, MultiTaskModule)
        if not trainer.should_stop:
            self._live = LiveTable(module, self.metrics.rows, self.reporter.ascii_only)
            self._step = self.reporter.track(self.title, _batches_left(trainer, module), self._live.table)
            self._advance = self._step.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if self.reporter.bars:
            self._live.read_losses()
        self._count(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if not trainer.sanity_checking:
            self._count(trainer)

    def _count(self, trainer: L.Trainer) -> None:
        limit = f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else ""
        self._advance(f"epoch {trainer.current_epoch + 1}{limit}")

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._step is not None:
            step, self._step = self._step, None
            step.__exit__(None, None, None)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if self._step is not None:
            step, self._step = self._step, None
            step.__exit__(type(exception), exception, exception.__traceback__)


def _batches_left(trainer: L.Trainer, module: Any) -> int:
    trainer.fit_loop.epoch_loop.val_loop.setup_data()  # else the number of batches may not be known yet
    per_epoch, validation = int(trainer.num_training_batches), sum(map(int, trainer.num_val_batches))
    limits = []
    if trainer.max_epochs not in (None, -1):
        limits.append((trainer.max_epochs - trainer.current_epoch) * per_epoch)
    if trainer.max_steps != -1:
        limits.append((trainer.max_steps - trainer.global_step) * module.batches_per_step)
    batches = max(0, min(limits, default=per_epoch))
    every, done = trainer.check_val_every_n_epoch or 1, trainer.current_epoch
    return batches + ((done + batches // per_epoch) // every - done // every) * validation


class MetricsTable(L.Callback):
    """`metrics.csv` with one row per epoch and task, and the validation score that decides which model is best.

    The score is delta_m where a reference exists, else minus the weighted sum of the validation losses; over the tasks
    that have a label in the validation split, and NaN without any.

    Args:
        path: of the CSV file.
        reference: headline metric per task, or None.
    """

    def __init__(self, path: Path, reference: dict[str, float] | None) -> None:
        self.path, self.reference = path, reference
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(module, MultiTaskModule)
        with joint_step():
            results = module.metrics.compute()
        train_losses = module.mean_train_losses()
        tasks, logged = module.model.tasks, dict[str, float]()
        for name, values in results.items():
            train_loss = train_losses.get(name, float("nan"))
            row = {"epoch": trainer.current_epoch, "task": name, "train_loss": train_loss, "val_loss": values["loss"]}
            self.rows.append(row | {k: v for k, v in values.items() if k != "loss"})
            logged[f"val_loss/{name}"] = values["loss"]
            logged[f"train_loss/{name}"] = train_loss
            logged[f"{tasks[name].headline}/{name}"] = values[tasks[name].headline]
        logged["score"] = self._score(results, module)
        module.log_dict(logged, sync_dist=trainer.world_size > 1)  # the processes have the same numbers
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_text(self.path, csv_text(self.rows, digits=6))

    def _score(self, results: dict[str, dict[str, float]], module: MultiTaskModule) -> float:
        tasks = module.model.tasks
        labelled = {name: values for name, values in results.items() if not math.isnan(values["loss"])}
        if not labelled:
            return math.nan
        if self.reference is not None:
            directions = {name: task.higher_is_better for name, task in tasks.items()}
            heads = {name: value for name, value in headlines(labelled, tasks).items() if math.isfinite(value)}
            return delta_m(heads, self.reference, directions) if heads else math.nan
        return -sum(tasks[name].weight * values["loss"] for name, values in labelled.items())


class StopEarly(EarlyStopping):
    """Stop after `patience` validations without a better score; a run that had stopped and is continued stays so."""

    def __init__(self, patience: int) -> None:
        # Without validation there is no score, and one that is NaN is no better than the best.
        super().__init__("score", mode="max", patience=patience, strict=False, check_finite=False)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
