"""A merged level at work: every active group runs its own copy of a module on its own rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.arguments import replace_arguments, tensor_arguments
from branchtune.errors import UserError
from branchtune.folded import split_groups
from branchtune.hooks import current_run


class PerGroup(nn.Module):
    """Stands where a module of the backbone stood, and runs each active group's copy of it.

    Args:
        level: whose groups they are.
        copies: one for each group of the level.
        sides: arguments beside the first tensor that carry the batch, by position or keyword.
    """

    def __init__(self, level: int, copies: Sequence[nn.Module], sides: Collection[int | str]) -> None:
        super().__init__()
        self.level, self.sides = level, frozenset(sides)
        self.copies = nn.ModuleList(copies)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The folded output of the active groups for folded arguments, both `[G * n, ...]`, group-major."""
        run = current_run.get()
        if run is None:
            raise UserError(
                "a merged level runs inside its model's call alone: call the model, not its backbone's copy"
            )
        active = run.route.groups[self.level]
        if len(active) == 1:
            return self.copies[active[0]](*args, **kwargs)
        tensors = tensor_arguments(args, kwargs)
        main = next(iter(tensors))
        folded = {key: tensor for key, tensor in tensors.items() if key == main or key in self.sides}
        parts = {key: split_groups(tensor, len(active)) for key, tensor in folded.items()}
        outputs = []
        for slot, group in enumerate(active):
            own_args, own_kwargs = replace_arguments(args, kwargs, {key: rows[slot] for key, rows in parts.items()})
            outputs.append(self.copies[group](*own_args, **own_kwargs))
        return _join(outputs)

    def __getattr__(self, name: str) -> Any:
        """What the backbone's code reads of the module that stood here, such as its number of heads."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            copies = self.__dict__.get("_modules", {}).get("copies")
            if copies is None or name.startswith("__"):  # what copying and pickling ask for is this module's own
                raise
            return getattr(copies[0], name)


def _join(outputs: Sequence[Any]) -> Any:
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if any(isinstance(value, Tensor) for value in first[1:]):
        raise UserError(
            "a module of a merged level returns several tensors, and did not when it was merged: pass "
            "merge(example_inputs=...) what the model is called with"
        )
    return type(first)([torch.cat([output[0] for output in outputs]), *first[1:]])
