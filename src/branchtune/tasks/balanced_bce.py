"""Binary cross-entropy for maps in which one of the two classes is rare."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from branchtune.joint import joint_sum
from branchtune.tasks.masked import check_same_shape, full_precision, masked, masked_mean


def balanced_bce(logits: Tensor, target: Tensor, positive_weight: float | None = None) -> Tensor:
    """Mean over labelled elements of `-[w y log p + (1 - w) (1 - y) log(1 - p)]`, `p = sigmoid(logits)`.

    The loss of holistically-nested edge detection (arXiv 1504.06375, eq. 2), as a mean.

    Args:
        logits: any shape.
        target: of that shape, in [0, 1], NaN ignored; y = 1 where target >= 0.5.
        positive_weight: w; None takes the fraction of negatives among the labelled elements of the batch.

    Raises:
        UserError: the shapes differ.
    """
    check_same_shape(logits, target)
    valid = ~target.isnan()
    logits = masked(full_precision(logits), valid)
    positive = (target >= 0.5).to(logits.dtype)
    if positive_weight is None:
        negative = (valid & (positive == 0)).sum()
        w = joint_sum(negative).to(logits.dtype) / joint_sum(valid.sum()).clamp(min=1)
    else:
        w = logits.new_tensor(positive_weight)
    losses = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    return masked_mean((w * positive + (1 - w) * (1 - positive)) * losses, valid)
