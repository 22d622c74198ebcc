"""What a request asks for, beside its image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from branchtune.errors import unknown
from branchtune.serving.schemas import Format
from branchtune.tasks.task import Task


@dataclass(frozen=True)
class Asked:
    """The outputs of one request.

    Args:
        tasks: in the order of the model.
        format: of the outputs.
        scores: instead of maps of classes the scores that they were chosen by, in arrays and lists.
    """

    tasks: tuple[str, ...]
    format: Format
    scores: bool = False


def tasks_asked_for(wanted: Sequence[str] | None, known: Mapping[str, Task]) -> tuple[str, ...]:
    """The named tasks in the order of the model; all of them where none is named.

    Raises:
        UserError: one that the model does not have.
    """
    names: Collection[str] = wanted or known
    for name in names:
        if name not in known:
            raise unknown("task", name, known)
    return tuple(name for name in known if name in names)
