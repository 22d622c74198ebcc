"""A training step of all four tasks against the limit, PEFT, one shared encoder, and our model task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

import branchtune as bt
from benchmarks.bench import BRIEF, Bench, mebibytes
from benchmarks.limit import FrozenStep
from benchmarks.memory import resident
from benchmarks.peers import PeftModels, SharedEncoder
from benchmarks.step import Step, weighted_square
from benchmarks.timing import Call
from benchmarks.workloads import BACKBONES, COMB, LORA, TREES

MODELS = "four PEFT models, one after another"
RECOMPUTED = "ours, blocks recomputed"
FROZEN = "frozen work, forward and backward"
SHAPE = TREES["1-1-2-4"]


def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for batch in bench.training.batches:
            _step(bench, name, batch)
    for shape in bench.training.trees:
        if TREES[shape] != SHAPE:
            _tree(bench, "Swin-T", shape)
    _families(bench, "Swin-T")


def _step(bench: Bench, name: str, batch: int) -> None:
    what, case = f"training step, {name}, batch {batch}", f"{name}, batch {batch}"
    if not bench.wants(what):
        return
    work, x = bench.training, bench.training.images(batch)
    backbone, spec = work.traced(name)
    steps = _steps(bench, name, x)
    calls: dict[str, Call] = {key: partial(_run, those) for key, (_, those) in steps.items()}
    calls[FROZEN] = FrozenStep(backbone, spec, SHAPE, x, bench.autocast)
    found = bench.compare(what, calls, base="ours", memory=True)
    held = {}
    for key, (module, those) in steps.items():
        stays = resident([*module.parameters(), *module.buffers(), *(t for step in those for t in step.state)])
        held[key] = stays + found.peaks[key]
    for key, count in held.items():
        bench.note(what, name=key, held_bytes=count, held_over_ours=count / held["ours"])
        bench.say(f"{what:<38} {key:<40} {mebibytes(count)} with what is resident, {count / held['ours']:.2f} of ours")
    bench.faster(f"four PEFT models, one after another, over ours, training step: {case}", 2.2, found, MODELS, "ours")
    for key, how in (("ours", ""), (RECOMPUTED, " with blocks recomputed")):
        bench.goal(
            f"peak memory of a training step{how} over that of four resident PEFT models, one after another: {case}",
            1.0,
            held[key] / held[MODELS],
            of=found,
            sides=(key, MODELS),
        )


def _tree(bench: Bench, name: str, shape: str) -> None:
    """Another tree than `SHAPE`, against the limit."""
    work = bench.training
    batch = work.batches[-1]
    what = f"training step by tree, {name}, {shape}, batch {batch}"
    if not bench.wants(what):
        return
    x = work.images(batch)
    backbone, spec = work.traced(name)
    calls: dict[str, Call] = {FROZEN: FrozenStep(backbone, spec, TREES[shape], x, bench.autocast)}
    for key, levels in (("ours", False), (RECOMPUTED, True)):
        calls[key] = _all_tasks(bench, work.model(name, TREES[shape], checkpoint_levels=levels).train(), x)
    bench.compare(what, calls, base=FROZEN, memory=True, effort=BRIEF)


def _families(bench: Bench, name: str) -> None:
    """Every family of adapters on `SHAPE`, against the limit."""
    work = bench.training
    batch = work.batches[-1]
    what = f"training step by adapter, {name}, batch {batch}"
    if not bench.wants(what):
        return
    x = work.images(batch)
    backbone, spec = work.traced(name)
    calls: dict[str, Call] = {FROZEN: FrozenStep(backbone, spec, SHAPE, x, bench.autocast)}
    for adapter in (LORA, bt.Bottleneck(), COMB):
        calls[type(adapter).__name__] = _all_tasks(bench, work.model(name, SHAPE, adapter).train(), x)
    bench.compare(what, calls, base=FROZEN, memory=True, effort=BRIEF)


def _steps(bench: Bench, name: str, x: Tensor) -> dict[str, tuple[nn.Module, Sequence[Step]]]:
    """By name, what is resident and the optimiser steps of one training step."""
    backbone, _ = bench.training.traced(name)
    ours, again, alone = (
        bench.training.model(name, SHAPE, checkpoint_levels=levels).train() for levels in (False, True, False)
    )
    shared = SharedEncoder(backbone, ours).train()
    four, switched, joint = (PeftModels(backbone, ours, separate=separate).train() for separate in (True, False, False))
    return {
        "ours": (ours, [_all_tasks(bench, ours, x)]),
        RECOMPUTED: (again, [_all_tasks(bench, again, x)]),
        "ours, task by task": (alone, [_task_by_task(bench, alone, x)]),
        MODELS: (four, _one_after_another(bench, four, x)),
        "one PEFT backbone, one after another": (switched, _one_after_another(bench, switched, x)),
        "one PEFT backbone, one joint backward": (joint, [jointly(bench, joint, x)]),
        "one shared encoder, all of it trained": (shared, [_all_tasks(bench, shared, x)]),
    }


def _all_tasks(bench: Bench, model: nn.Module, x: Tensor) -> Step:
    return Step(bench, model.parameters(), lambda: weighted_square(model(x)))


def _task_by_task(bench: Bench, model: bt.MultiTaskModel, x: Tensor) -> Step:
    losses = [lambda task=task: weighted_square(model(x, [task])) for task in model.tasks]
    return Step(bench, model.parameters(), *losses)


def _one_after_another(bench: Bench, peft: PeftModels, x: Tensor) -> list[Step]:
    steps = []
    for task in peft.tasks:
        for parameter in peft.trainable(task):
            parameter.requires_grad_(True)  # of adapters that are not the active one, too
        steps.append(Step(bench, peft.trainable(task), _loss_of(peft, task, x)))
    return steps


def _loss_of(peft: PeftModels, task: str, x: Tensor) -> Callable[[], Tensor]:
    return lambda: weighted_square({task: peft.run(task, x)})


def jointly(bench: Bench, peft: PeftModels, x: Tensor) -> Step:
    parameters = [parameter for task in peft.tasks for parameter in peft.trainable(task)]

    def train_all() -> None:
        for parameter in parameters:
            parameter.requires_grad_(True)

    def loss() -> Tensor:
        value = weighted_square(peft(x))
        train_all()  # switching froze the others, whose gradients would be dropped
        return value

    train_all()
    return Step(bench, parameters, loss)


def _run(steps: Sequence[Step]) -> None:
    for step in steps:
        step()
