"""A finished run: its settings, data and model."""

from __future__ import annotations

from pathlib import Path

from branchtune.evaluation.evaluate import evaluate
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings
from branchtune.run.workbench import Workbench


def load_model(run: Path, bench: Workbench) -> MultiTaskModel:
    """The run's model in eval mode, on the device of its configuration."""
    return MultiTaskModel.from_pretrained(run / "model", backbone=bench.backbone, device=bench.device)


def evaluate_run(run: Path, reporter: Reporter) -> dict[str, dict[str, float]]:
    """Metrics of a finished run's model, computed again on the data of its configuration."""
    bench = Workbench(load_settings(run).on_one_device().config, reporter)
    model, batches = load_model(run, bench), bench.test_batches()
    with reporter.track("evaluate", len(batches)) as advance:
        return evaluate(model, batches, advance)
