"""A number that is wanted, and the one that was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Goal:
    """A bound and the value that is held against it.

    Attributes:
        wanted: a bound; `at_least` says on which side of it the value should lie.
        low, high: quartiles of the value over rounds; None where it was counted, not timed.
        counted: the quotient of floating-point operations beside one of times; None where they were not counted.
        what, sides: the comparison that the value comes from, and the calls of it: what a profile of a miss shows.
    """

    name: str
    wanted: float
    value: float
    at_least: bool = False
    low: float | None = None
    high: float | None = None
    what: str | None = None
    sides: tuple[str, ...] = ()
    counted: float | None = None

    @property
    def verdict(self) -> str:
        """ "pass", "MISS", or "unclear" where the bound lies between the quartiles."""
        if self.low is not None and self.high is not None and self.low < self.wanted < self.high:
            return "unclear"
        return "pass" if self.met else "MISS"

    @property
    def met(self) -> bool:
        """Whether the value itself is on the right side of the bound, however it spreads."""
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    @property
    def bound(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.wanted:g}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Goal:
        fields = {key: value for key, value in data.items() if key != "verdict"}
        return cls(**fields | {"sides": tuple(data["sides"])})


def largest(values: Iterable[float]) -> float:
    """NaN where one of them is, of which Python's `max` may lose sight: no goal takes it."""
    return float(np.max(list(values)))
