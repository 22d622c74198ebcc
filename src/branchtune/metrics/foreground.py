"""Foreground masks at a range of thresholds, compared with the true one image by image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLDS = tuple(percent / 100 for percent in range(20, 91, 5))


class ForegroundCounts(NamedTuple):
    """Pixel counts of the N images of a batch that have a label, at K thresholds, float64.

    Attributes:
        hits: predicted and true, `[N, K]`.
        predicted: predicted, `[N, K]`.
        true: true, `[N, 1]`.
    """

    hits: Tensor
    predicted: Tensor
    true: Tensor


def foreground_counts(output: Tensor, target: Tensor) -> ForegroundCounts:
    """Count at thresholds 0.20, 0.25, ..., 0.90 of the sigmoid (strictly above is foreground).

    Args:
        output: logits `[B, 1, H, W]`.
        target: `[B, H, W]` in [0, 1], foreground from 0.5 on, NaN ignored.
    """
    valid = ~target.isnan()
    probability = torch.where(valid, output[:, 0].double().sigmoid(), 0.0)
    truth = target >= 0.5
    hits, predicted = [], []
    for threshold in THRESHOLDS:
        mask = probability > threshold
        hits.append((mask & truth).sum(dim=(1, 2)))
        predicted.append(mask.sum(dim=(1, 2)))
    labelled = valid.flatten(1).any(dim=1)
    true = truth.sum(dim=(1, 2))[:, None]
    return ForegroundCounts(
        torch.stack(hits, dim=1)[labelled].double(),
        torch.stack(predicted, dim=1)[labelled].double(),
        true[labelled].double(),
    )
