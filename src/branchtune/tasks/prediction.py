"""What a model returns -> what it predicts: by default, by the kind of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.tasks.masked import full_precision
from branchtune.tasks.targets import describe

if TYPE_CHECKING:
    from branchtune.tasks.task import Task

_INDICES = ((2**8, torch.uint8), (2**16, torch.uint16), (2**32, torch.uint32))


def default_prediction(task: Task, output: Tensor) -> Tensor:
    """See `Task.prediction`."""
    if task.target_kind == "classes":
        smallest = next(dtype for count, dtype in _INDICES if task.out_channels <= count)
        return output.argmax(1).to(smallest)
    output = full_precision(output)
    if task.target_kind == "image":
        return output.softmax(1) if task.image_target == "class" else output
    return output[:, 0] if task.out_channels == 1 else output


def check_prediction(task: Task, prediction: Tensor, output: Tensor) -> None:
    """Refuse what a user's own `prediction` returned, unless it is classes or numbers for every pixel or image.

    Raises:
        UserError: shows what was returned and what was expected.
    """
    classes, dense = task.target_kind == "classes", task.dense
    place = [*output.shape[:1], *output.shape[2:]]
    fits = (
        isinstance(prediction, Tensor)
        and prediction.ndim in ((3,) if classes else (3, 4) if dense else (2,))
        and [*prediction.shape[:1], *(prediction.shape[-2:] if dense else ())] == place
        and not (classes and prediction.is_floating_point())
    )
    if not fits:
        found = describe(prediction) if isinstance(prediction, Tensor) else type(prediction).__name__
        numbers = "integers" if classes else "numbers"
        expected = f"{place}" if dense else f"[{place[0]}, C]"
        raise UserError(f"task {task.name!r}: its prediction() returned {found}, expected {numbers} {expected}")
