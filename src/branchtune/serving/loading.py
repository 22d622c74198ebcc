"""A run directory, or a folder of `save_pretrained` -> the model to serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from branchtune.backbone.statistics import image_statistics
from branchtune.data.transforms import Transform
from branchtune.errors import UserError
from branchtune.low_memory.precision import Precision
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings, model_folder
from branchtune.run.finished import load_model
from branchtune.run.workbench import Workbench
from branchtune.serving.examples import Example, run_examples
from branchtune.serving.limits import Limits
from branchtune.serving.served import Served
from branchtune.shipping.files import CONFIG
from branchtune.shipping.load import read_model_config
from branchtune.training.device import choose_device


def check_servable(path: Path) -> None:
    """Refuse at once what holds no model; loading it takes longer.

    Raises:
        UserError: neither a finished run with its model nor a saved model's folder.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder: give a run directory, or what save_pretrained wrote")
    if _is_saved_model(path):
        read_model_config(path)
    else:
        load_settings(path)
        read_model_config(model_folder(path))


def load_served(
    path: Path,
    *,
    backbone_checkpoint: str | None = None,
    low_memory: Precision | None = None,
    examples: Sequence[Example] | None = None,
    limits: Limits | None = None,
) -> Served:
    """Load the model and run it once.

    Args:
        path: a run directory, whose configuration names the device, or a saved model's folder.
        backbone_checkpoint: see `MultiTaskModel.from_pretrained`; a run knows its own.
        low_memory: store the backbone's weights in this precision.
        examples: images to try; default: some of the run's own.
        limits: of the server, which the images of a run are made to fit; default: `Limits()`.

    Raises:
        UserError: the model cannot be loaded.
    """
    if _is_saved_model(path):
        device = choose_device({})
        model = MultiTaskModel.from_pretrained(path, backbone_checkpoint=backbone_checkpoint, device=device)
        normalisation = image_statistics(model.backbone.frozen)
        if low_memory is not None:
            model = model.low_memory(low_memory)
        transform = Transform({}, model.spec.image_size, *normalisation)
        served = Served(path.resolve().name, model, transform, device, examples or ())
    else:
        if backbone_checkpoint is not None:
            raise UserError("--backbone_checkpoint is for a saved model's folder: a run names its own in config.yaml")
        bench = Workbench(load_settings(path).on_one_device().config, Reporter.silent())
        model = load_model(path, bench, low_memory)
        transform = bench.image_transform
        images = run_examples(bench, limits or Limits()) if examples is None else examples
        served = Served(bench.config.name, model, transform, bench.device, images)
    served.warm_up()
    return served


def _is_saved_model(path: Path) -> bool:
    return (path / CONFIG).exists()
