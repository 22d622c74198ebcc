"""Timing by turns: what is compared runs in alternation, so that a slow minute of the machine slows all of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    @classmethod
    def quotient(cls, above: Sequence[float], below: Sequence[float]) -> Quartiles:
        """Of the quotients, round by round."""
        return cls.of([a / b for a, b in zip(above, below, strict=True)])

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Effort:
    """How often calls are repeated: as many rounds as fit into `seconds`, between `least` and `most`."""

    seconds: float
    least: int
    most: int

    @classmethod
    def exactly(cls, rounds: int) -> Effort:
        return cls(0.0, rounds, rounds)

    def rounds(self, seconds: float) -> int:
        """For rounds that take `seconds`."""
        return max(self.least, min(self.most, int(self.seconds / seconds)))


def by_turns(calls: Mapping[str, Call], effort: Effort, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in every round, after two that do not count.

    The first makes what is made once, such as compiled code; the time of the second says how many rounds fit. The order
    is reversed in every other round: what runs first finds other caches than what runs last.
    """
    for call in calls.values():
        call()
    rounds = effort.rounds(sum(_seconds(call, device) for call in calls.values()))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for round_ in range(rounds):
        for name in names if round_ % 2 else names[::-1]:
            seconds[name].append(_seconds(calls[name], device))
    return seconds


def _seconds(call: Call, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
