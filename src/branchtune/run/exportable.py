"""The model to export: of a finished run, or of a folder that `save_pretrained` wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings, model_folder
from branchtune.run.finished import load_model
from branchtune.run.workbench import Workbench
from branchtune.shipping.files import CONFIG


def load_exportable(path: Path, backbone_checkpoint: str | None, reporter: Reporter) -> MultiTaskModel:
    """The model at `path`, on the CPU, in eval mode.

    Args:
        path: a run directory, a saved model's folder, or "user/name" of a repository of the Hugging Face Hub.
        backbone_checkpoint: see `MultiTaskModel.from_pretrained`; a run knows its own.

    Raises:
        UserError: the run has not ended or has no model; the folder holds no model that can be loaded.
    """
    is_run = path.is_dir() and not (path / CONFIG).exists()
    if not is_run:
        return MultiTaskModel.from_pretrained(path, backbone_checkpoint=backbone_checkpoint, device="cpu")
    config = load_settings(path).on_one_device().config
    model_folder(path)
    if backbone_checkpoint is not None:
        raise UserError("--backbone_checkpoint is for a saved model's folder: a run names its own in config.yaml")
    on_cpu = {**config.trainer, "accelerator": "cpu", "devices": 1}
    return load_model(path, Workbench(dataclasses.replace(config, trainer=on_cpu), reporter))
