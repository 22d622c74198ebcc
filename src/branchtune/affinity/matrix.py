"""`Affinity`: the measured T x T matrices, their errors, and what a planner needs to know of the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from branchtune.backbone.spec import BackboneSpec
from branchtune.errors import UserError

if TYPE_CHECKING:
    import os

    from torch import Tensor

Normalize = Literal["none", "elementwise", "per_tensor"]
Source = Literal["adapters", "weights"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class AffinityCost:
    """What a measurement cost; one pass is one image once through the backbone, forward or backward.

    Attributes:
        seconds: of the gradients.
        images: images run forward for them.
        gradients: images run backward for them, summed over tasks.
        fit_seconds: of fitting the decoders first; 0 when they were given.
        fit_images: images run forward for that (the frozen backbone needs no backward pass).
    """

    seconds: float = 0.0
    images: int = 0
    gradients: int = 0
    fit_seconds: float = 0.0
    fit_images: int = 0

    @property
    def passes(self) -> int:
        """All passes together."""
        return self.images + self.gradients + self.fit_images

    def share(self, training_images: int) -> float:
        """The measurement as a share of training an unbranched tree on `training_images` images.

        Training runs every image once forward and once backward; a tree that forks costs more, so that the share
        is at most this.
        """
        return self.passes / (2 * training_images)


@dataclass(frozen=True, eq=False)
class Affinity:
    """Gradient similarity of every two tasks, from -1 (opposed) to 1 (the same direction).

    Entry (t, t') is the expected similarity of the gradients of task t on one sample and of task t' on another one.
    The diagonal is therefore not 1 but how much a task agrees with itself from sample to sample.

    Attributes:
        tasks: names, in the order of rows and columns.
        overall: `[T, T]`, from the gradient with respect to all sites.
        per_level: `[L, T, T]`, from the part of the gradient that belongs to the sites of each level.
        overall_error: `[T, T]`, standard errors; NaN where unknown.
        per_level_error: `[L, T, T]`.
        spec: the traced backbone, whose levels the planner needs.
        normalize: "none" (plain cosine), "elementwise" or "per_tensor".
        source: gradients of the shared "adapters" at initialisation, or of the frozen "weights" of the adapted sites.
        samples: labelled samples used, per task.
        seeds: of the adapters' A, the decoders and the order of the data.
        cost: what measuring cost.
        decoders: the state of the decoders that were fitted, for training to start from; not stored in files.
    """

    tasks: tuple[str, ...]
    overall: Matrix
    per_level: Matrix
    overall_error: Matrix
    per_level_error: Matrix
    spec: BackboneSpec
    normalize: Normalize = "none"
    source: Source = "adapters"
    samples: Mapping[str, int] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    cost: AffinityCost = field(default_factory=AffinityCost)
    decoders: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        count, levels = len(self.tasks), len(self.spec.levels)
        if not count or len(set(self.tasks)) != count:
            raise UserError(f"an affinity needs tasks with distinct names, got {list(self.tasks)}")
        for name in ("overall", "per_level", "overall_error", "per_level_error"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            expected = (count, count) if name.startswith("overall") else (levels, count, count)
            if values.shape != expected:
                raise UserError(
                    f"affinity: {name} has shape {values.shape}, expected {expected} ({count} tasks, {levels} levels)"
                )
            if not name.endswith("error"):
                _check_similarities(name, values)
            object.__setattr__(self, name, values)

    @classmethod
    def from_matrix(
        cls,
        tasks: Sequence[str],
        overall: ArrayLike,
        spec: BackboneSpec,
        per_level: ArrayLike | None = None,
    ) -> Affinity:
        """An affinity from numbers of one's own, for planning by hand; errors are unknown.

        Args:
            tasks: names, in the order of rows and columns.
            overall: `[T, T]`, symmetric.
            spec: the traced backbone (`trace_backbone`).
            per_level: `[L, T, T]`; default: `overall` at every level.
        """
        matrix = np.asarray(overall, dtype=np.float64)
        levels = np.stack([matrix] * len(spec.levels)) if per_level is None else np.asarray(per_level, np.float64)
        return cls(tuple(tasks), matrix, levels, np.full_like(matrix, np.nan), np.full_like(levels, np.nan), spec)

    def corrected(self, level: int | None = None) -> Matrix:
        """The affinity without its attenuation by the noise of single samples: `[T, T]` in [-1, 1], diagonal 1.

        For plain cosine, `A[t, t'] = <m_t, m_t'>` with m_t the mean unit gradient of task t, so that two tasks that
        agree perfectly score only as high as each agrees with itself. `A[t, t'] / sqrt(A[t, t] A[t', t'])` is the
        cosine of m_t and m_t': it compares levels and tasks of different noise. Standard errors s make the estimate
        cautious:

        - numerator: `A[t, t'] max(0, 1 - (s[t, t'] / A[t, t'])^2)`, positive-part shrinkage, zero for what is noise;
        - denominator: `max(A[t, t], 2 s[t, t])` for the agreement of t with itself.

        Both errors vanish with more samples. Where the denominator is not positive, a pair keeps its plain value; so do
        pairs of a task with too few labels for an error of its own agreement, where others have one.

        Args:
            level: of the level's matrix instead of the overall one.
        """
        matrix = self.overall if level is None else self.per_level[level]
        error = self.overall_error if level is None else self.per_level_error[level]
        unknown = ~np.isfinite(np.diagonal(error)) & np.isfinite(error).any()
        error = np.where(np.isfinite(error), error, 0.0)
        own = np.where(unknown, 0.0, np.maximum(np.diagonal(matrix), 2 * np.diagonal(error)))
        scale = np.sqrt(np.outer(np.maximum(own, 0.0), np.maximum(own, 0.0)))
        beyond = np.where(np.abs(matrix) > error, matrix - error**2 / np.where(matrix == 0, 1.0, matrix), 0.0)
        quotient = np.where(scale > 0, beyond / np.where(scale > 0, scale, 1.0), matrix)
        result: Matrix = np.clip(quotient, -1.0, 1.0)
        np.fill_diagonal(result, 1.0)
        return result

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, with a format version; decoders are left out."""
        from branchtune.affinity.store import affinity_to_json

        return affinity_to_json(self)

    @classmethod
    def from_json(cls, data: str | dict[str, Any]) -> Affinity:
        """The inverse of `to_json`; accepts the dictionary or its text.

        Raises:
            UserError: a newer format, or not an affinity.
        """
        from branchtune.affinity.store import affinity_from_json

        return affinity_from_json(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as JSON, under a temporary name that is then renamed.

        Raises:
            UserError: the file cannot be written.
        """
        from branchtune.affinity.store import save_affinity

        save_affinity(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Affinity:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of a newer format.
        """
        from branchtune.affinity.store import load_affinity

        return load_affinity(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affinity) and self.to_json() == other.to_json()

    def table(self, level: int | None = None) -> str:
        """The overall matrix, or that of a level, in text: every entry with its standard error."""
        from branchtune.affinity.text import affinity_table

        return affinity_table(self, level)

    def __str__(self) -> str:
        from branchtune.affinity.text import affinity_text

        return affinity_text(self)


def _check_similarities(name: str, values: Matrix) -> None:
    if not np.isfinite(values).all() or not np.allclose(values, values.swapaxes(-1, -2), atol=1e-8):
        raise UserError(f"affinity: {name} is not symmetric or not finite")
    largest = values.flat[np.abs(values).argmax()]
    if abs(largest) > 1 + 1e-6:
        raise UserError(f"affinity: {name} holds {largest:g}, but a similarity is between -1 and 1: scale the matrix")
