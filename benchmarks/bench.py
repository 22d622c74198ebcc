"""What every benchmark is given, and what it leaves: measurements, and goals with their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from benchmarks.memory import peak
from benchmarks.timing import Call, Ratio, by_turns


@dataclass(frozen=True)
class Goal:
    """A number that is wanted, and the one that was measured.

    Attributes:
        wanted: a bound; `at_least` says on which side of it the value should lie.
        low, high: quartiles of the value over rounds; None where it was counted, not timed.
    """

    name: str
    wanted: float
    value: float
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "passed": self.passed}


@dataclass
class Bench:
    """One run of the benchmarks.

    Attributes:
        rounds: of every timing.
        bfloat16: whether calls run under autocast, as on a GPU.
    """

    device: torch.device
    rounds: int
    bfloat16: bool
    say: Callable[[str], None]
    measured: list[dict[str, Any]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def compare(
        self, what: str, calls: Mapping[str, Call], base: str, memory: bool = False, rounds: int | None = None
    ) -> dict[str, list[float]]:
        """Time the calls by turns and note the time of each over that of `base`, and on request its peak of memory.

        Returns:
            The seconds of every round, by name.
        """
        with self.precision():
            seconds = by_turns(calls, rounds or self.rounds, self.device)
            peaks = {name: peak(call, self.device) for name, call in calls.items()} if memory else {}
        for name, values in seconds.items():
            ratio = Ratio.of(values, seconds[base])
            entry = {"what": what, "name": name, "ms": 1e3 * median(values), "over": base, **vars(ratio)}
            self.measured.append(entry | ({"peak_bytes": peaks[name]} if peaks else {}))
            held = f", {peaks[name] / 2**20:7.1f} MiB" if peaks else ""
            self.say(f"{what:<34} {name:<28} {entry['ms']:9.2f} ms{held}  {ratio} of {base}")
        return seconds

    def goal(self, name: str, wanted: float, value: Ratio | float, at_least: bool = False) -> None:
        if isinstance(value, Ratio):
            goal = Goal(name, wanted, value.median, at_least, value.low, value.high)
        else:
            goal = Goal(name, wanted, value, at_least)
        self.goals.append(goal)
        self.say(f"{'pass' if goal.passed else 'MISS'}  {name}: {goal.value:.3g}, wanted {_bound(goal)}")


def _bound(goal: Goal) -> str:
    return f"{'at least' if goal.at_least else 'at most'} {goal.wanted:g}"
