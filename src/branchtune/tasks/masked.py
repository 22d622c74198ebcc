"""Means over the labelled elements of a batch, without a NaN in the forward or the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.joint import joint_sum, processes


def full_precision(values: Tensor) -> Tensor:
    """Half precision -> float32; float32 and float64 as they are (losses do not run in half precision)."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def masked(values: Tensor, valid: Tensor) -> Tensor:
    """`values` with zeros where not `valid`: done before the arithmetic, ignored elements get no gradient."""
    return torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the labelled elements, 0 without any; see `mean_over`.

    Args:
        values: any shape; NaN where not `valid` does no harm.
        valid: bool, of that shape.
    """
    return mean_over(masked(values, valid).sum(), valid)


def mean_over(total: Tensor, valid: Tensor) -> Tensor:
    """A sum over the elements marked `valid`, divided by their number.

    In a step of several processes (`joint_step`) by their number in all of them, times the number of processes, so that
    the mean over processes is the mean over the joint batch. Losses of a user's own tasks are exact there if they use
    this or `masked_mean`.

    Args:
        total: the sum, a scalar.
        valid: bool, any shape.
    """
    return total * processes() / joint_sum(valid.sum()).clamp(min=1)


def check_same_shape(output: Tensor, target: Tensor) -> None:
    """Refuse shapes that torch would broadcast, by which one sample would be compared with another.

    Raises:
        UserError: shows both shapes.
    """
    if output.shape != target.shape:
        raise UserError(
            f"the output {list(output.shape)} and the target {list(target.shape)} of a loss differ in shape: a target "
            "has no channel dimension of one, [B, H, W]"
        )


def masked_l1(output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean of `|output - target|` over the labelled elements.

    Args:
        output: any shape.
        target: of that shape; NaN where not `valid` does no harm.
        valid: bool, of that shape.

    Raises:
        UserError: the shapes of output and target differ.
    """
    check_same_shape(output, target)
    output = full_precision(output)
    return masked_mean((masked(output, valid) - masked(target, valid)).abs(), valid)
