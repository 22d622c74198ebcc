"""Model -> one PEFT LoRA folder per task, with the task's decoder beside it."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from branchtune.atomic import other_work, replace_directory
from branchtune.backbone.check import image_channels
from branchtune.backbone.clone import clone_sharing_weights
from branchtune.branching import BranchedBackbone
from branchtune.errors import UserError
from branchtune.installed import check_installed
from branchtune.model import MultiTaskModel
from branchtune.shipping.export_path import check_output
from branchtune.shipping.graph import task_names
from branchtune.shipping.peft_adapter import check_method, task_adapter, without_grouping_warning
from branchtune.shipping.peft_card import CARD, peft_card
from branchtune.shipping.tensors import to_bytes
from branchtune.tree import TaskTree

CONFIG, ADAPTER, DECODER = "adapter_config.json", "adapter_model.safetensors", "decoder.safetensors"
TOLERANCE = 1e-8


@dataclass(frozen=True)
class PeftReport:
    """The folders written.

    Attributes:
        path: of the folder that holds one per task.
        differences: per task, of its features from the model's in float64, relative to the largest magnitude.
    """

    path: Path
    differences: dict[str, float]

    def __str__(self) -> str:
        tasks = ", ".join(f"{task} {value:.1e}" for task, value in self.differences.items())
        return (
            f"wrote {self.path}: a LoRA of PEFT and a decoder per task\n"
            f"largest difference of the features from the model's, in float64, relative to the largest value: {tasks}"
        )


def export_peft(
    model: MultiTaskModel,
    path: str | os.PathLike[str],
    *,
    tasks: Sequence[str] | None = None,
    overwrite: bool = False,
) -> PeftReport:
    """Write `path/TASK` for every task: what `peft.PeftModel.from_pretrained(backbone, "path/TASK")` loads.

    The adapted backbone computes the features of the task's path; `decoder.safetensors` makes the output from them, and
    the README of each folder shows how. Trained extras are `modules_to_save`. Every folder is loaded again and compared
    with the model, and all of them appear together or not at all.

    Args:
        model: trained; it is left as it was.
        path: the folder of the tasks' folders.
        tasks: default: all.
        overwrite: replace a folder that an earlier export wrote.

    Raises:
        UserError: peft is missing; the path is taken or cannot be written; an unknown task; adapters or extras that
            PEFT cannot hold; features that differ from the model's.
    """
    check_installed("exporting PEFT adapters", "peft", "peft")
    path = check_output(path, overwrite)
    _check_replaceable(path)
    names = task_names(model, tasks)
    check_method(model)
    exact = copy.deepcopy(model).cpu().eval()
    differences = {}
    with replace_directory(path) as folder:
        for task in names:
            with other_work():
                adapter, card = task_adapter(exact, task), peft_card(model, task)
                decoder = to_bytes(dict(exact.decoders[task].state_dict()))
            adapter.save_pretrained(str(folder / task), save_embedding_layers=False)
            (folder / task / DECODER).write_bytes(decoder)
            (folder / task / CARD).write_text(card, encoding="utf-8")
        with other_work():
            exact.double()
            for task in names:
                differences[task] = _check(exact, task, folder / task)
    return PeftReport(path, differences)


@torch.no_grad()
def _check(model: MultiTaskModel, task: str, folder: Path) -> float:
    """The largest difference of the features that the folder gives on a plain backbone, relative to the largest value.

    The backbone's own extras are zeros here: those of the folder must take their place.
    """
    from peft import PeftModel

    branched = model.backbone
    plain = clone_sharing_weights(branched.frozen, branched.extra_names)
    for name, parameter in plain.named_parameters():
        if name in branched.extra_names:
            parameter.zero_()
    with without_grouping_warning():
        adapted = PeftModel.from_pretrained(plain, folder).double().eval()
    one_path = TaskTree.shared([task], model.tree.num_levels)
    alone = BranchedBackbone(adapted.get_base_model(), model.spec, one_path, None).eval()
    size = model.spec.image_size
    images = torch.randn(2, image_channels(plain), *size, generator=torch.Generator().manual_seed(0)).double()
    worst = 0.0
    for level, (found, expected) in enumerate(zip(alone(images)[task], branched(images, [task])[task], strict=True)):
        difference = float((found - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"PEFT computes other features than the model for task {task!r} at the end of level {level} "
                f"({difference:.1e} of the largest): nothing was written; use --format onnx or torch"
            )
        worst = max(worst, difference)
    return worst


def _check_replaceable(path: Path) -> None:
    """Only a folder that holds nothing but what this export writes is replaced."""
    if not path.is_dir():
        return
    written = {CONFIG, ADAPTER, DECODER, CARD}
    for entry in path.iterdir():
        found = {file.name for file in entry.iterdir()} if entry.is_dir() else set()
        if found != written:
            foreign = [f"{entry.name}/{name}" for name in sorted(found - written)]
            name = foreign[0] if foreign else entry.name
            raise UserError(f"{path} holds {name!r}, which no PEFT export wrote: choose another folder")
