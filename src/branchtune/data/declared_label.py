"""One label of `dataset.yaml`, and how what is stored of it becomes a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from branchtune.errors import UserError
from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.targets import MAX_DEPTH

FILE = "dataset.yaml"
LabelKind = Literal["classes", "values", "depth", "normals"]
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
UNIT_TOLERANCE = 0.1


@dataclass(frozen=True)
class Label:
    """One task of `dataset.yaml`.

    Args:
        kind: `classes` whole numbers, `values` one number per pixel, `depth`, `normals`.
        num_classes: of `classes`; or their names as a list.
        units: of `depth`: m, cm or mm; of `values`: any text, for the report.
        scale: what stored numbers are multiplied by, before units; 16-bit pictures often need one.
        range: smallest and largest value of `values` and `depth`, in their units (depth: metres).
        ignore: stored values that mean "not labelled"; null: 255 for `classes`, 0 for `depth`, nothing else.
        flip: axes of `normals` to negate, to arrive at x right, y down, z forward.
        partial: whether samples may lack this label.
        folder: of the files; null: the task's name.
        column: of a table; null: the task's name.
    """

    kind: LabelKind
    num_classes: int | list[str] | None = None
    units: str | None = None
    scale: float = 1.0
    range: tuple[float, float] | None = None
    ignore: list[float] | None = None
    flip: list[Literal["x", "y", "z"]] = field(default_factory=list)
    partial: bool = False
    folder: str | None = None
    column: str | None = None

    @property
    def channels(self) -> int:
        if self.kind == "classes":
            return len(self.num_classes) if isinstance(self.num_classes, list) else int(self.num_classes or 0)
        return 3 if self.kind == "normals" else 1

    @property
    def ignored(self) -> list[float]:
        if self.ignore is not None:
            return list(self.ignore)
        return {"classes": [float(IGNORED_CLASS)], "depth": [0.0]}.get(self.kind, [])

    def decode(self, stored: np.ndarray, where: object) -> np.ndarray:
        """A stored array -> the target, `[H, W]` or `[3, H, W]`, with ignored pixels 255 or NaN.

        Raises:
            UserError: a shape or value that the declaration does not allow, with `where` in front.
        """
        if self.kind == "normals":
            return self._normals(stored, where)
        if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
            stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
        if stored.ndim != 2 or stored.dtype.kind not in "biuf":
            raise UserError(f"{where}: {stored.dtype} {list(stored.shape)}, expected numbers [H, W]")
        ignored = np.isin(stored, _as_stored(self.ignored, stored.dtype))
        if self.kind == "classes":
            wrong = ~ignored & ((stored < 0) | (stored >= self.channels) | (stored != np.floor(stored)))
            self._refuse(wrong, stored, where, "value", self._outside(f"0 to {self.channels - 1}"))
            return np.where(ignored, IGNORED_CLASS, stored).astype(np.uint8)
        return self._numbers(stored.astype(np.float64), ignored, where)

    def _numbers(self, stored: np.ndarray, ignored: np.ndarray, where: object) -> np.ndarray:
        unknown_ = ignored | np.isnan(stored)
        if self.kind == "depth":
            unknown_ |= np.isinf(stored)
            values = stored * self.scale * METRES[self.units or "m"]
            low, high = self.range or (0.0, MAX_DEPTH)
            wrong = (values < low) | (values > high) | (values <= 0) | (values >= MAX_DEPTH)
            allowed = f"{low:g} to {high:g} metres"
        else:
            values = stored * self.scale
            low, high = self.range or (-math.inf, math.inf)
            wrong = np.isinf(values) | (values < low) | (values > high)
            allowed = f"{low:g} to {high:g}"
        self._refuse(wrong & ~unknown_, values, where, "value", self._outside(allowed))
        return np.where(unknown_, np.nan, values).astype(np.float32)

    def _normals(self, stored: np.ndarray, where: object) -> np.ndarray:
        if stored.ndim != 3 or 3 not in (stored.shape[0], stored.shape[-1]) or stored.dtype.kind not in "biuf":
            raise UserError(f"{where}: {stored.dtype} {list(stored.shape)}, expected [H, W, 3] or [3, H, W] of numbers")
        vectors = stored if stored.shape[0] == 3 and stored.shape[-1] != 3 else np.moveaxis(stored, -1, 0)
        ignored = (vectors == 0).all(0) | np.isnan(vectors.astype(np.float64)).any(0)
        for value in self.ignored:
            ignored |= (vectors == value).all(0)
        values = vectors.astype(np.float64)
        if vectors.dtype == np.uint8:
            values = 2 * values / 255 - 1
        with np.errstate(invalid="ignore"):
            length = np.sqrt(np.square(values).sum(0))
            wrong = ~ignored & ~(np.abs(length - 1) <= UNIT_TOLERANCE)
        fault = "not that of a unit normal, as -1 to 1 or as 8-bit colours 2v/255-1"
        self._refuse(wrong, length, where, "length", fault)
        values /= np.where(ignored, np.nan, length)
        for axis in self.flip:
            values["xyz".index(axis)] *= -1
        return values.astype(np.float32)

    def _outside(self, allowed: str) -> str:
        return f"outside the declared {allowed}, ignored {_listed(self.ignored)}"

    def _refuse(self, wrong: np.ndarray, values: np.ndarray, where: object, what: str, fault: str) -> None:
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"{where}: {what} {values[wrong][0]:g} at row {row}, column {column} is {fault} "
                f"({wrong.mean():.1%} of the pixels), correct the file or {FILE}"
            )


def _as_stored(values: list[float], kind: np.dtype) -> np.ndarray:
    """What marks pixels as not labelled, rounded as the file has rounded it: -3.4028235e38 is no float32."""
    marks = np.asarray(values, dtype=np.float64)
    if kind.kind != "f":
        return marks
    with np.errstate(over="ignore"):
        rounded = marks.astype(kind)
    return rounded[np.isfinite(rounded)]


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
