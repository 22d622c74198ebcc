"""What happens around the epochs: progress, metrics.csv, the score that checkpoints are chosen by."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
import torch

from branchtune.atomic import write_text
from branchtune.evaluation.delta_m import delta_m
from branchtune.evaluation.evaluate import headlines
from branchtune.progress import Reporter
from branchtune.training.module import MultiTaskModule


class EpochProgress(L.Callback):
    """One step of the reporter per training batch, over all epochs."""

    def __init__(self, reporter: Reporter, title: str) -> None:
        self.reporter, self.title = reporter, title
        self._step: Any = None
        self._advance: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        batches = int(trainer.num_training_batches)
        remaining = max(0, (trainer.max_epochs or 1) - trainer.current_epoch) * batches
        self._step = self.reporter.track(self.title, remaining)
        self._advance = self._step.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        self._advance(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None


class MetricsTable(L.Callback):
    """`metrics.csv` with one row per epoch and task, and the validation score that decides which model is best.

    The score is delta_m where a reference exists, else minus the weighted sum of the validation losses.

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
        results = module.metrics.compute()
        tasks = module.model.tasks
        for name, values in results.items():
            losses = module.train_losses.get(name, [])
            train_loss = float(torch.stack(losses).mean()) if losses else float("nan")
            row = {"epoch": trainer.current_epoch, "task": name, "train_loss": train_loss, "val_loss": values["loss"]}
            self.rows.append(row | {k: v for k, v in values.items() if k != "loss"})
            module.log(f"val_loss/{name}", values["loss"])
            module.log(f"train_loss/{name}", train_loss)
            module.log(f"{tasks[name].headline}/{name}", values[tasks[name].headline])
        module.log("score", self._score(results, module))
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_text(self.path, _csv(self.rows))

    def _score(self, results: dict[str, dict[str, float]], module: MultiTaskModule) -> float:
        tasks = module.model.tasks
        if self.reference is not None:
            directions = {name: task.higher_is_better for name, task in tasks.items()}
            return delta_m(headlines(results, tasks), self.reference, directions)
        losses = {name: tasks[name].weight * values["loss"] for name, values in results.items()}
        return -sum(loss for loss in losses.values() if loss == loss)


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()
