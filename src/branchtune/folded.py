"""The folded batch: the rows of G groups in one tensor, `[G * B, ...]`, group-major."""

from __future__ import annotations

from torch import Tensor


def split_groups(folded: Tensor, groups: int) -> tuple[Tensor, ...]:
    """The rows of each group, `[B, ...]`: views; as `chunk`, for a batch of symbolic size too."""
    return folded.unflatten(0, (groups, -1)).unbind()
