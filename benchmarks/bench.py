"""What every group of benchmarks is given, and what it leaves: measurements, and goals with their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.goal import Goal
from benchmarks.memory import peak
from benchmarks.operations import operations
from benchmarks.timing import Call, Effort, Quartiles, by_turns
from benchmarks.workloads import Workloads

USUAL = Effort(seconds=20, least=5, most=41)
#: for goals within a few hundredths of one
TIGHT = Effort(seconds=20, least=7, most=81)
#: for what no goal depends on
BRIEF = Effort(seconds=8, least=3, most=21)


@dataclass(frozen=True)
class Compared:
    """What `Bench.compare` found: seconds of every round and, if asked for, the peak of memory in bytes, by call."""

    what: str
    seconds: dict[str, list[float]]
    peaks: dict[str, int]
    calls: Mapping[str, Call]

    def over(self, above: str, below: str) -> Quartiles:
        """The time of one call over that of another."""
        return Quartiles.quotient(self.seconds[above], self.seconds[below])

    def counted(self, above: str, below: str) -> float:
        """The same of floating-point operations."""
        return operations(self.calls[above]) / operations(self.calls[below])


class Bench:
    """One run of a group.

    Args:
        rounds: of every timing; None: as many as fit into its time.
        small: shrunken backbones, to try the benchmarks out.

    Attributes:
        serving: what infers; in bfloat16 on a GPU, as a model would be served there.
        training: what trains; in float32, with the forward pass under `autocast`.
    """

    def __init__(
        self, device: torch.device, rounds: int | None = None, small: bool = False, say: Callable[[str], None] = print
    ) -> None:
        self.device, self.rounds, self.small, self.say = device, rounds, small, say
        on_gpu = device.type == "cuda"
        self.training = Workloads(device, torch.float32, small)
        self.serving = Workloads(device, torch.bfloat16, small) if on_gpu else self.training
        self.measured: list[dict[str, Any]] = []
        self.goals: list[Goal] = []

    def autocast(self) -> AbstractContextManager[Any]:
        """Around a forward pass that trains, inside the call that is timed: no cast outlives a step."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def wants(self, what: str) -> bool:
        """Whether the comparison `what` is asked for."""
        return True

    def compare(
        self, what: str, calls: Mapping[str, Call], base: str, memory: bool = False, effort: Effort = USUAL
    ) -> Compared:
        """Time the calls by turns and note the time of each over that of `base`, and on request its peak of memory.

        Args:
            effort: how many rounds, where they are not fixed for all.
        """
        effort = Effort.exactly(self.rounds) if self.rounds else effort
        seconds = by_turns(calls, effort, self.device)
        peaks = {name: peak(call, self.device) for name, call in calls.items() if memory}
        found = Compared(what, seconds, peaks, calls)
        for name, values in seconds.items():
            ratio = found.over(name, base)
            held = {"peak_bytes": found.peaks[name]} if memory else {}
            entry = {"name": name, "ms": 1e3 * median(values), "over": base, **vars(ratio), "rounds": len(values)}
            self.note(what, **entry, **held)
            text = f", {mebibytes(found.peaks[name])}" if memory else ""
            self.say(f"{what:<38} {name:<40} {entry['ms']:9.2f} ms{text}  {ratio} of {base}")
        return found

    def note(self, what: str, **values: Any) -> None:
        """Keep something that was measured, beside what `compare` keeps."""
        self.measured.append({"what": what, **values})

    def goal(
        self,
        name: str,
        wanted: float,
        value: Quartiles | float,
        at_least: bool = False,
        of: Compared | None = None,
        sides: tuple[str, ...] = (),
        counted: float | None = None,
    ) -> None:
        """Hold a value against a bound; `of` and `sides` are the comparison and the calls that it comes from.

        Args:
            counted: the same quotient of floating-point operations, where it was counted.
        """
        if isinstance(value, Quartiles):
            middle, low, high = value.median, value.low, value.high
        else:
            middle, low, high = value, None, None
        if not math.isfinite(middle):
            raise ValueError(f"{name}: {middle}")
        goal = Goal(name, wanted, middle, at_least, low, high, of.what if of else None, sides, counted)
        self.goals.append(goal)
        self.say(f"{goal.verdict}  {name}: {goal.value:.3g}, wanted {goal.bound}")

    def faster(self, name: str, wanted: float, found: Compared, above: str, below: str) -> None:
        """The goal that `above` takes at least `wanted` times as long as `below`; their operations are counted, too."""
        counted = found.counted(above, below)
        self.goal(name, wanted, found.over(above, below), True, found, (above, below), counted)

    def within(self, name: str, wanted: float, found: Compared, above: str, below: str, counted: bool = False) -> None:
        """The goal that `above` takes at most `wanted` times as long as `below`; on request with their operations."""
        quotient = found.counted(above, below) if counted else None
        self.goal(name, wanted, found.over(above, below), False, found, (above, below), quotient)


def mebibytes(count: int) -> str:
    return f"{count / 2**20:7.1f} MiB"
