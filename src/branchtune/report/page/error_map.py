"""How far a prediction is from its target, pixel by pixel, and the same for tasks with one label per image."""

from __future__ import annotations

import torch
from torch import Tensor

from branchtune.ignored import IGNORED_CLASS, IGNORED_LABEL
from branchtune.tasks.task import Task


def error_map(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    """The error of every pixel `[H, W]`, NaN where it has no label.

    Classes: 0 or 1. Normals: the angle in degrees. Depth: metres. Values: in their own unit.

    Args:
        task: a dense one.
        prediction: of `Task.prediction`, `[H, W]` or `[C, H, W]`, whose mean counts for depth and values.
        target: `[H, W]` or `[3, H, W]`.
    """
    if task.target_kind == "classes":
        return (prediction.long() != target).float().masked_fill(target == IGNORED_CLASS, float("nan"))
    if task.target_kind == "normals":
        cosine = torch.nn.functional.cosine_similarity(prediction.float(), target.float(), dim=0)
        return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).masked_fill(target.isnan().any(0), float("nan"))
    values = prediction.float()
    return ((values.mean(0) if values.ndim == 3 else values) - target).abs()


def error_unit(task: Task) -> str:
    """The unit of `error_map`, as it is written behind a number."""
    return {"normals": "°", "depth": " m"}.get(task.target_kind, "")


def written(task: Task, prediction: Tensor, target: Tensor | None) -> tuple[str, str, str]:
    """Target, prediction and error of a task with one label per image, in words; a dash where there is none.

    Args:
        prediction: `[C]`, of `Task.prediction`.
        target: a class, or `[C]` values; None without a label.
    """
    if task.image_target == "class":
        found = int(prediction.argmax())
        words = f"class {found} ({float(prediction[found]):.0%})"
        if target is None or int(target) == IGNORED_LABEL:
            return "–", words, "–"
        return f"class {int(target)}", words, "right" if found == int(target) else "wrong"
    if target is None or bool(target.isnan().all()):
        return "–", _numbers(prediction), "–"
    return _numbers(target), _numbers(prediction), _numbers((prediction - target).abs())


def _numbers(values: Tensor) -> str:
    shown = ["–" if value != value else f"{value:.3g}" for value in values.flatten()[:6].tolist()]
    return ", ".join(shown) + (", …" if values.numel() > 6 else "")
