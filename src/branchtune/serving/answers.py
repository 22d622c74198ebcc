"""What the model returned for an image -> the answer to its request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from branchtune.pictures.colour import picture
from branchtune.pictures.encoding import image_bytes, npy_bytes
from branchtune.run.inference import ImageOutput
from branchtune.serving.asked import Asked
from branchtune.serving.json_pieces import Base64
from branchtune.serving.served import Passed
from branchtune.serving.uploads import Upload
from branchtune.tasks.task import Task

QUICKLY = 1  # zlib's level: five times the default's speed for files a tenth larger


@torch.no_grad()
def answer(known: Mapping[str, Task], asked: Asked, upload: Upload, passed: Passed) -> dict[str, Any]:
    """A `schemas.Prediction` for `json_pieces`; one task after the other, which bounds the memory.

    Args:
        known: the model's tasks.
        asked: what the request asks for.
        upload: its image.
        passed: what the model returned for it.
    """
    return {
        "width": upload.size[1],
        "height": upload.size[0],
        "image": upload.seen,
        "tasks": {name: _output(ImageOutput(known[name], raw, upload.size), asked) for name, raw in passed.raw.items()},
        "timing": passed.timing.model_dump(),
    }


def _output(output: ImageOutput, asked: Asked) -> dict[str, Any]:
    task = output.task
    scores = asked.scores and asked.format != "png" and task.target_kind == "classes"
    value = output.scores() if scores else output.prediction()
    array = value.numpy()
    drawn = asked.format == "png" and task.dense
    return {
        "shape": list(value.shape),
        "low": _finite(array.min()),
        "high": _finite(array.max()),
        "png": Base64(image_bytes(picture(task, value), "PNG", compress_level=QUICKLY)) if drawn else None,
        "npy": Base64(npy_bytes(value)) if asked.format == "npy" else None,
        "values": array if asked.format == "json" or not task.dense else None,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
