"""How long an answer would be; too long a one is refused before it is made."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import HTTPException

from branchtune.serving.limits import MOST_ARRAYS, MOST_NUMBERS
from branchtune.serving.schemas import Format
from branchtune.tasks.task import Task

_FLOAT = 4  # bytes


def check_length(tasks: Iterable[Task], size: tuple[int, int], format: Format, scores: bool) -> None:
    """Look at the maps of an answer in arrays or lists.

    Raises:
        HTTPException: 422 with the length and the way out.
    """
    per_pixel = [
        (1, 1) if task.target_kind == "classes" and not scores else (task.out_channels, _FLOAT)
        for task in tasks
        if task.dense
    ]
    pixels = size[0] * size[1]
    numbers = pixels * sum(channels for channels, _ in per_pixel)
    length = pixels * sum(channels * each for channels, each in per_pixel)
    way = f"{'without scores, ' if scores else ''}for fewer tasks, or send a smaller image"
    if format == "json" and numbers > MOST_NUMBERS:
        raise HTTPException(
            422,
            f"that is {numbers:,} numbers, too many for JSON (at most {MOST_NUMBERS:,}): ask for format npy, {way}",
        )
    if format == "npy" and length > MOST_ARRAYS:
        raise HTTPException(
            422, f"that is {length / 1e6:,.0f} MB of arrays, too much (at most {MOST_ARRAYS / 1e6:.0f} MB): ask {way}"
        )
