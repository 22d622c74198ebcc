"""torch.compile: no graph break, no new compilation for batches of one size, equal numbers, and what it gains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.goal import largest
from benchmarks.step import Step, weighted_square
from benchmarks.workloads import BACKBONES, TREES

VANISHES = 1e-5


@dataclass(frozen=True)
class Compilation:
    """What compiling a model did.

    Attributes:
        made: the compiled model.
        breaks: where the graph is cut, with the reasons.
        again: graphs compiled for two further batches of the size of the first.
        differences: the largest of each task's output, and of all gradients if it trains, relative to the largest
            number of its tensor, of gradients at least `VANISHES` times the largest of all.
        rounding: likewise, of the model as it is from its copy in float64.
    """

    made: Callable[[Tensor], dict[str, Tensor]]
    breaks: tuple[str, ...]
    again: int
    differences: Mapping[str, float]
    rounding: Mapping[str, float]


def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for training in (False, True):
            _backbone(bench, name, training)


def _backbone(bench: Bench, name: str, training: bool) -> None:
    work = bench.training if training else bench.serving
    kind, batch = "training step" if training else "inference", work.batches[-1]
    what, case = f"torch.compile, {kind}, {name}, batch {batch}", f"{kind}, {name}"
    if not bench.wants(what):
        return
    model, x = subject(bench, name, training), work.images(batch)
    backend = "eager" if bench.small else "inductor"
    with bench.autocast() if training else torch.no_grad():
        found = examine(model, x, backend)
    bench.note(what, name="graph breaks", reasons=list(found.breaks))
    bench.goal(f"graph breaks of torch.compile: {case}", 0, len(found.breaks))
    bench.goal(f"new compilations for two more batches of one size: {case}", 0, found.again)
    tolerance = 1e-4 if x.dtype == torch.float32 and not (training and bench.device.type == "cuda") else 3e-2
    bench.note(what, name="largest relative differences", compiled=found.differences, rounding=found.rounding)
    worst = largest(found.differences.values())
    bench.goal(f"largest relative difference of compiled numbers: {case}", tolerance, worst)
    if training:
        eager, faster = (_step(bench, model, call, x) for call in (model, found.made))
        bench.compare(what, {"eager": eager, "compiled": faster}, base="eager")
    else:
        with torch.no_grad():
            bench.compare(what, {"eager": lambda: model(x), "compiled": lambda: found.made(x)}, base="eager")


def _step(bench: Bench, model: bt.MultiTaskModel, call: Callable[[Tensor], dict[str, Tensor]], x: Tensor) -> Step:
    return Step(bench, model.parameters(), lambda: weighted_square(call(x)))


def subject(bench: Bench, name: str, training: bool) -> bt.MultiTaskModel:
    """The model that is compiled; in training without the drops that compiled code draws in another order."""
    work = bench.training if training else bench.serving
    model = work.model(name, TREES["1-1-2-4"]).train(training)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return model


def examine(model: bt.MultiTaskModel, x: Tensor, backend: str) -> Compilation:
    """Compile the model for images `x`, with gradients if it is in training mode."""
    torch._dynamo.reset()
    breaks = torch._dynamo.explain(model)(x).break_reasons
    torch._dynamo.reset()
    made = torch.compile(model, backend=backend)
    expected, found = _numbers(model, model, x), _numbers(made, model, x)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for factor in (0.5, -1.0):
        _numbers(made, model, factor * x)
    again = graphs["unique_graphs"] - before
    twin = copy.deepcopy(model).double()
    exact = _numbers(twin, twin, x.double())
    tasks = model.tasks
    return Compilation(
        made,
        tuple(str(b.reason) for b in breaks),
        again,
        _differences(found, expected, tasks),
        _differences(expected, exact, tasks),
    )


def _numbers(call: Callable[[Tensor], dict[str, Tensor]], model: bt.MultiTaskModel, x: Tensor) -> dict[str, Tensor]:
    outputs = call(x)
    found = {task: output.detach() for task, output in outputs.items()}
    if model.training:
        weighted_square(outputs).backward()
        found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
    return found


def _differences(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tasks: Collection[str]
) -> dict[str, float]:
    """By task, and of the gradients together: those that vanish, as of queries for a single key, are rounding alone."""
    sizes = {key: float(right.abs().max()) for key, right in expected.items()}
    least = VANISHES * max((size for key, size in sizes.items() if key not in tasks), default=0.0)
    worst: dict[str, float] = {}
    for key, right in expected.items():
        name = key if key in tasks else "gradients"
        apart = float((found[key] - right).abs().max()) / max(sizes[key], least, 1e-12)
        worst[name] = largest([apart, worst.get(name, 0.0)])
    return worst
