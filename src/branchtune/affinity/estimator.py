"""The interface of an affinity estimator: a stream of per-sample gradients -> matrices and their standard errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from branchtune.affinity.matrix import Matrix


@dataclass(frozen=True)
class Estimate:
    """Matrices `[T, T]` or `[L, T, T]` and their standard errors, NaN where unknown."""

    overall: Matrix
    overall_error: Matrix
    per_level: Matrix
    per_level_error: Matrix

    def reordered(self, tasks: Sequence[int]) -> Estimate:
        """The same with the tasks at these positions, in this order."""
        order, values = list(tasks), (self.overall, self.overall_error, self.per_level, self.per_level_error)
        return Estimate(*(value[..., order, :][..., order] for value in values))


class Estimator(ABC):
    """Collects gradients sample by sample; two tasks are compared on different samples only."""

    @abstractmethod
    def add(self, gradients: Tensor, labelled: Tensor) -> None:
        """Take in the next n samples.

        Args:
            gradients: `[T, n, P]`, zero where unlabelled.
            labelled: bool `[T, n]`.
        """

    @abstractmethod
    def estimate(self) -> Estimate:
        """The matrices from what was taken in; every task has two labelled samples or more."""
