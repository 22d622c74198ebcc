"""How long the parts of one pass take: the stem, every level of the tree, every decoder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from branchtune.model import MultiTaskModel

STEM = "stem"


class Stopwatch:
    """Wall time of one pass by part, in milliseconds.

    A part lasts from the start of its first module to the start of the next part: a level's time has its fork, its
    adapters and what runs between it and the next level in it. The device finishes its work at every such point.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._starts: list[tuple[str, float]] = []

    def start(self, part: str) -> None:
        """The part before ends here."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        self._starts.append((part, time.perf_counter()))

    def milliseconds(self) -> dict[str, float]:
        """By part, in their order; the last `start` only ends the one before."""
        found: dict[str, float] = {}
        for (part, begin), (_, end) in zip(self._starts, self._starts[1:], strict=False):
            found[part] = found.get(part, 0.0) + 1000 * (end - begin)
        return found


def level_part(level: int) -> str:
    return f"level {level}"


def decoder_part(task: str) -> str:
    return f"decoder {task}"


@contextmanager
def timed(model: MultiTaskModel, device: torch.device) -> Iterator[Stopwatch]:
    """Time what the model does inside of the block; only one thread may use the model meanwhile."""
    watch = Stopwatch(device)
    modules = dict(model.backbone.frozen.named_modules())
    parts = {level_part(level.index): modules[level.start] for level in model.spec.levels}
    parts |= {decoder_part(name): model.decoders[name] for name in model.tasks}
    # Before the hook that forks: it belongs to the level.
    handles = [module.register_forward_pre_hook(_starting(watch, part), prepend=True) for part, module in parts.items()]
    watch.start(STEM)
    try:
        yield watch
        watch.start("end")
    finally:
        for handle in handles:
            handle.remove()


def _starting(watch: Stopwatch, part: str) -> Any:
    def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        watch.start(part)

    return hook
