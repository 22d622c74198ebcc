"""A finished run: its settings, data and model."""

from __future__ import annotations

from pathlib import Path

from branchtune.evaluation.evaluate import evaluate
from branchtune.low_memory.model import LowMemoryModel
from branchtune.low_memory.precision import Precision
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings, model_folder
from branchtune.run.workbench import Workbench


def load_model(run: Path, bench: Workbench, low_memory: Precision | None = None) -> MultiTaskModel:
    """The run's model in eval mode, on the device of its configuration.

    Args:
        low_memory: store the backbone's weights in this precision, see `low_memory.model.low_memory`.

    Raises:
        UserError: the run has no model, or it cannot be loaded.
    """
    folder = model_folder(run)
    model = MultiTaskModel.from_pretrained(folder, backbone=bench.backbone, device=bench.device)
    if low_memory is None:
        return model
    bench.forget_backbone()
    return model.low_memory(low_memory)


def evaluate_run(run: Path, reporter: Reporter, low_memory: Precision | None = None) -> dict[str, dict[str, float]]:
    """Metrics of a finished run's model, computed again on the data of its configuration."""
    bench = Workbench(load_settings(run).on_one_device().config, reporter)
    model, batches = load_model(run, bench, low_memory), bench.test_batches()
    if isinstance(model, LowMemoryModel):
        reporter.say(model.describe())
    with reporter.track("evaluate", len(batches)) as advance:
        return evaluate(model, batches, advance)
