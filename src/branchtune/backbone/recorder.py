"""Run a backbone once up to the end of its last level and note every call on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from branchtune.backbone.arguments import tensor_arguments
from branchtune.backbone.features import first_tensor
from branchtune.backbone.levels import LevelBounds
from branchtune.errors import UserError


class StopForward(Exception):
    """Raised by the hook at the end of the last level: what follows (final norm, classifier) is not needed."""


@dataclass
class Call:
    """What one module saw: rows are the first dimension of its first tensor argument.

    `level` is None, and `problem` says why, where the module does not run inside one level. `plain` means that every
    tensor is an argument of its own and that one tensor comes out, so that rows can be split off and put together.
    """

    level: int | None
    problem: str | None
    rows: int
    input_shape: tuple[int, ...]
    fingerprint: Tensor
    side_rows: dict[int | str, int]
    plain: bool
    count: int = 1
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    last_layer: str | None = None


@dataclass
class Recording:
    calls: dict[str, Call] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    starts: dict[int, str] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)
    stem_macs: int = 0
    level_macs: list[int] = field(default_factory=list)
    level_operations: list[int] = field(default_factory=list)


class Recorder:
    """One forward pass with hooks on every module; see `Recording` for what it notes.

    Args:
        model: a copy of the backbone.
        bounds: of its levels.
        counts: whether to count multiply-accumulates, for which every operation passes through Python.
    """

    def __init__(self, model: nn.Module, bounds: tuple[LevelBounds, ...], counts: bool = True) -> None:
        self.model, self.bounds, self.counts = model, bounds, counts
        self.recording = Recording(level_macs=[0] * len(bounds), level_operations=[0] * len(bounds))
        self.level: int | None = None
        self.awaiting = 0
        self.running: list[str] = []
        self.noting = self.finished = False
        self._latest: tuple[Tensor, int, Tensor] | None = None  # a tensor, its version and its fingerprint

    def run(self, images: Tensor, inputs: dict[str, Tensor]) -> Recording:
        entry: Any = getattr(self.model, "forward_features", self.model.forward)
        # The math kernel decomposes attention into products that torch's counter knows on every device.
        with self._hooks(), sdpa_kernel(SDPBackend.MATH), _CountMacs(self) if self.counts else nullcontext():
            try:
                entry(images, **inputs)
            except StopForward:
                self.finished = True
        if not self.finished:
            done = len(self.recording.taps)
            raise UserError(
                f"{type(self.model).__name__} never ran module {self.bounds[done].end!r} as the end of level {done}: "
                "levels must be named in the order in which the backbone calls them, each called once"
            )
        return self.recording

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = []
        for name, module in self.model.named_modules():
            if name:
                handles.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
                handles.append(module.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = tensor_arguments(args, kwargs)
            if self.level is None and self.awaiting < len(self.bounds):
                start = self.bounds[self.awaiting].start
                if start == name or (start is None and tensors):
                    self.level = self.awaiting
                    self.recording.starts[self.level] = name
            self.running.append(name)
            if tensors:
                others = [value for value in (*args, *kwargs.values()) if not isinstance(value, Tensor)]
                self._note_call(name, tensors, plain=not _tensors_inside(others))

        return hook

    def _note_call(self, name: str, tensors: dict[int | str, Tensor], plain: bool) -> None:
        main = next(iter(tensors))
        known = self.recording.calls.get(name)
        level = self._owning_level()
        if known is None:
            self.recording.order.append(name)
            self.recording.calls[name] = Call(
                level,
                None if level is not None else "runs before the first level, once for all branches",
                len(tensors[main]),
                tuple(tensors[main].shape),
                self._fingerprint(tensors[main]),
                {key: len(value) for key, value in tensors.items() if key != main},
                plain,
            )
        else:
            known.count += 1
            known.plain &= plain
            self._check_level(known)

    def _fingerprint(self, tensor: Tensor) -> Tensor:
        """Of a module's input, which is often that of the first module in it, too."""
        version = -1 if tensor.is_inference() else tensor._version
        if self._latest is None or self._latest[0] is not tensor or self._latest[1] != version or version < 0:
            self.noting = True
            self._latest = tensor, version, fingerprint(tensor)
            self.noting = False
        return self._latest[2]

    def _owning_level(self) -> int | None:
        """The level that runs; what runs between two levels belongs to the one before, whose branches it sees."""
        if self.level is None and self.awaiting > 0:
            return self.awaiting - 1
        return self.level

    def _check_level(self, call: Call) -> None:
        if call.level != self._owning_level():
            call.level, call.problem = None, "runs in more than one level"

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.running.pop()
            call = self.recording.calls.get(name)
            if call is not None:
                self._check_level(call)
                call.plain &= _tensors_inside(output) == 1
                value = output[0] if isinstance(output, tuple | list) and output else output
                if isinstance(value, Tensor):
                    call.output_shapes.append(tuple(value.shape))
                if isinstance(module, nn.Linear | nn.Conv2d):
                    for outer in self.running:
                        if outer in self.recording.calls:
                            self.recording.calls[outer].last_layer = name
            if self.level is not None and name == self.bounds[self.level].end:
                self.recording.taps[name] = first_tensor(output)
                self.awaiting, self.level = self.level + 1, None
                if self.awaiting == len(self.bounds):
                    raise StopForward

        return hook

    def count(self, macs: int) -> None:
        """One operation of the level that runs, and its multiply-accumulates."""
        level = self._owning_level()
        if level is None:
            self.recording.stem_macs += macs
        else:
            self.recording.level_macs[level] += macs
            self.recording.level_operations[level] += 1


class _CountMacs(TorchDispatchMode):
    """Adds each operation's multiply-accumulates, by torch's own formulas, to the level that runs."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.recorder.noting:  # the fingerprints are ours
            return output
        formula = flop_registry.get(func._overloadpacket)
        self.recorder.count(0 if formula is None else formula(*args, **(kwargs or {}), out_val=output) // 2)
        return output


def _tensors_inside(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_tensors_inside, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_tensors_inside, value))
    return int(isinstance(value, Tensor))


def fingerprint(tensor: Tensor) -> Tensor:
    """Two numbers per row that change when the row does: `[rows, 2]`."""
    rows = tensor.detach().flatten(1) if tensor.ndim > 1 else tensor.detach()[:, None]
    if not rows.is_floating_point() or rows.dtype.itemsize < 4:
        rows = rows.double()
    norm = torch.linalg.vector_norm(rows, dim=1) / rows.shape[1] ** 0.5
    return torch.stack([rows.mean(1), norm], dim=1)
