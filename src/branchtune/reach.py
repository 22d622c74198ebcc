"""Which branches a backward pass reaches: the adapters of the others get no gradient, rather than one of zeros.

All branches share one folded tensor, so autograd alone would hand zeros to the nodes of a task whose loss is not in
the pass, and an optimiser with momentum or weight decay would move them. The features of every task are therefore
split off by a function that notes, per backward pass, whose features received a gradient; the function that stacks
the nodes' parameters asks it. Only the structure decides, never the values.

In what torch.compile makes, the backward pass is one graph for all branches, and zeros is what it hands out: call a
compiled model with the tasks that have a loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.frozen_linear import FrozenCall


class Reach:
    """The notes of one forward pass.

    Args:
        slot: per task and level, the position of its group among the active ones.
        trunk: of the pass that these tasks' own streams leave; it is reached with them.
    """

    def __init__(self, slot: Mapping[str, Sequence[int]], trunk: Reach | None = None) -> None:
        self.slot, self.trunk = slot, trunk
        self._deepest: dict[int, dict[str, int]] = defaultdict(dict)

    def note(self, task: str, level: int) -> None:
        """The current backward pass has a gradient for the features of `task` at the end of `level`."""
        deepest = self._deepest[_backward_pass()]
        deepest[task] = max(level, deepest.get(task, level))
        if self.trunk is not None:
            self.trunk.note(task, level)

    def groups(self, level: int) -> set[int]:
        """Positions of the groups of `level` that the current backward pass reaches."""
        deepest = self._deepest[_backward_pass()]
        return {self.slot[task][level] for task, found in deepest.items() if found >= level}

    def split(self, folded: Tensor, level: int) -> dict[str, Tensor]:
        """Feature maps of a level, `[G * B, ...]`, group-major -> each task's `[B, ...]`."""
        slots = {task: slots[level] for task, slots in self.slot.items()}
        rows = folded.shape[0] // (max(slots.values()) + 1)
        if torch.compiler.is_compiling():
            return {task: folded[slot * rows : (slot + 1) * rows] for task, slot in slots.items()}
        return dict(zip(slots, _Split.apply(folded, self, level, slots, rows), strict=True))


class Nodes(Sequence[Any]):
    """The adapter modules of the G active groups at one site, in fold order.

    Args:
        modules: one for each group.
        reach: which of them a backward pass reaches.
        level: of the site.
        frozen: the call that they adapt, where they may write into its output and take over its gradient.
    """

    def __init__(
        self, modules: Sequence[nn.Module], reach: Reach, level: int, frozen: FrozenCall | None = None
    ) -> None:
        self.modules, self.reach, self.level, self.frozen = modules, reach, level, frozen

    def stack(self, name: str) -> Tensor:
        """Parameter `name` of every node: `[G, ...]`."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            if len(self.modules) == 1:
                return getattr(self.modules[0], name)[None]  # no copy
            return torch.stack([getattr(module, name) for module in self.modules])
        return _Stack.apply(self.reach, self.level, *(getattr(module, name) for module in self.modules))

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, index: Any) -> Any:
        return self.modules[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.modules)


def _backward_pass() -> int:
    return torch._C._current_graph_task_id()


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, folded: Tensor, reach: Reach, level: int, slots: dict[str, int], rows: int
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.reach, ctx.level, ctx.slots, ctx.rows, ctx.shape = reach, level, slots, rows, folded.shape
        return tuple(folded[slot * rows : (slot + 1) * rows] for slot in slots.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        parts: dict[int, Tensor] = {}
        for (task, slot), gradient in zip(ctx.slots.items(), gradients, strict=True):
            if gradient is not None:
                ctx.reach.note(task, ctx.level)
                parts[slot] = parts[slot] + gradient if slot in parts else gradient
        if not parts:
            return None, None, None, None, None
        like = next(iter(parts.values()))
        zeros = torch.zeros_like(like)
        groups = ctx.shape[0] // ctx.rows
        return torch.cat([parts.get(slot, zeros) for slot in range(groups)]), None, None, None, None


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reach: Reach, level: int, *parameters: Tensor) -> Tensor:
        ctx.reach, ctx.level = reach, level
        return torch.stack(parameters)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        reached = ctx.reach.groups(ctx.level)
        return None, None, *(g if i in reached else None for i, g in enumerate(gradient.unbind()))
