"""F-measures and average precision of edge maps whose pixels are matched one to one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from branchtune.errors import UserError
from branchtune.metrics.edge_f import NUM_THRESHOLDS
from branchtune.metrics.matching import count_matches
from branchtune.metrics.ridges import keep_ridges
from branchtune.metrics.streaming import StreamingMetric
from branchtune.metrics.thinning import thin

THRESHOLDS = np.arange(1, NUM_THRESHOLDS + 1) / 100


class MatchedEdgeF(StreamingMetric):
    """The boundary benchmark's "ods_f", "ois_f" and "ap", all in [0, 1].

    As P. Arbeláez et al., "Contour detection and hierarchical image segmentation" (2011), define them. The sigmoid
    is reduced to its ridges (`keep_ridges`). At each of the thresholds 0.01, ..., 0.99 what reaches it is thinned
    (`thin`) and matched with the true edges one to one within the tolerance (`count_matches`): with M pairs, P
    predicted and T true pixels the precision is M / P, the recall M / T, and F = 2 M / (P + T).

    - ods_f: the best F over thresholds of the counts of the whole set.
    - ois_f: the F of the counts of the whole set, each image taken at the threshold of its own best F (of equal ones
      at the highest).
    - ap: area under precision over recall, of the whole set's counts: linear between the thresholds' points, constant
      below the smallest recall, 0 beyond the largest.

    Ridges keep apart what would merge at a low threshold; thinning per threshold narrows what ridges leave wide,
    plateaus above all. The true edges are thinned as well, so that a perfect prediction scores 1 on labels whose lines
    are wider than a pixel or turn in right angles. The benchmark's program differs in that it leaves true edges as they
    are, interpolates F between thresholds, and gives ap no area below the smallest recall.

    One image of 192x256 takes 0.4 to 1.2 s of one CPU core, the more the busier it is: this is for a finished model,
    not for every epoch.

    Args:
        max_dist: the tolerance as a fraction of the image diagonal: 0.0075 is usual, for NYUD-v2 0.011.
    """

    higher_is_better = True
    predicted: Tensor
    matched: Tensor
    true: Tensor
    best_predicted: Tensor
    best_matched: Tensor

    def __init__(self, max_dist: float = 0.0075, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= max_dist < 1:
            raise UserError(f"max_dist is a fraction of the image diagonal in [0, 1), got {max_dist}")
        self.max_dist = max_dist
        for name in ("predicted", "matched"):
            self.add_sum(name, (NUM_THRESHOLDS,))
        for name in ("true", "best_predicted", "best_matched"):
            self.add_sum(name)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, 1, H, W]`, target `[B, H, W]`, an edge from 0.5 on, NaN ignored."""
        radius = self.max_dist * math.hypot(*target.shape[-2:])
        probabilities = output[:, 0].double().sigmoid().nan_to_num().cpu().numpy()
        for probability, labels in zip(probabilities, target.cpu().numpy(), strict=True):
            ignored = np.isnan(labels)
            if ignored.all():
                continue
            truth = thin(labels >= 0.5)
            predicted, matched = _counts(_levels(probability, ignored), truth, radius)
            true = int(truth.sum())
            f = 2 * matched / np.maximum(predicted + true, 1)
            best = NUM_THRESHOLDS - 1 - int(f[::-1].argmax())
            self.predicted += torch.from_numpy(predicted).to(self.predicted)
            self.matched += torch.from_numpy(matched).to(self.matched)
            self.true += true
            self.best_predicted += int(predicted[best])
            self.best_matched += int(matched[best])

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars by name; NaN without a true edge pixel in the set."""
        values = {
            "ods_f": (2 * self.matched / (self.predicted + self.true).double()).max(),
            "ois_f": 2 * self.best_matched / (self.best_predicted + self.true).double(),
            "ap": average_precision(self.predicted, self.matched, self.true),
        }
        return {name: torch.where(self.true > 0, value, torch.nan) for name, value in values.items()}


def average_precision(predicted: Tensor, matched: Tensor, true: Tensor) -> Tensor:
    """Area under precision over recall, a float64 scalar; see `MatchedEdgeF`.

    Args:
        predicted, matched: pixel counts `[K]`, one per threshold in rising order; a threshold that nothing reaches has
            no precision and is left out.
        true: the number of true pixels, a scalar above 0.
    """
    reached = predicted > 0
    matched = matched[reached].flip(0).double()
    precision, recall = matched / predicted[reached].flip(0), matched / true
    # The more is predicted, the lower the precision: of equal recalls the largest precision comes first.
    order = precision.argsort(descending=True, stable=True)
    order = order[recall[order].argsort(stable=True)]
    precision, recall = precision[order], recall[order]
    return torch.trapezoid(
        torch.cat([precision[:1], precision]), torch.cat([recall.new_zeros(1)[: len(recall)], recall])
    )


def _levels(probability: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """How many of the thresholds the ridges of one map reach, 0 where ignored."""
    if ignored.any():
        # An ignored pixel looks like its nearest labelled one, or ridges would bend at the border of the labels.
        nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
        probability = probability[tuple(nearest)]
    levels = np.searchsorted(THRESHOLDS, keep_ridges(probability), side="right")
    return np.where(ignored, 0, levels)


def _counts(levels: np.ndarray, truth: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and matched pixels at every threshold, int64 `[99]`."""
    predicted, matched = np.zeros((2, NUM_THRESHOLDS), dtype=np.int64)
    below = 0
    # Between two levels that occur, every threshold selects the same pixels.
    for level in np.unique(levels[levels > 0]):
        mask = thin(levels >= level)
        predicted[below:level] = mask.sum()
        matched[below:level] = count_matches(mask, truth, radius)
        below = level
    return predicted, matched
