"""Timing by turns: what is compared runs in alternation, so that a slow minute of the machine slows all of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of a quotient of times, round by round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, above: list[float], below: list[float]) -> Ratio:
        quotients = [a / b for a, b in zip(above, below, strict=True)]
        low, median, high = statistics.quantiles(quotients, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def by_turns(calls: Mapping[str, Call], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in every round, after one round that does not count.

    The order is reversed in every other round: what runs first finds other caches than what runs last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(-1, rounds):
        names = list(calls) if round_ % 2 else list(reversed(calls))
        for name in names:
            taken = _seconds(calls[name], device)
            if round_ >= 0:
                seconds[name].append(taken)
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
