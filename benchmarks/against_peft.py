"""All four tasks in one pass, and in one training step, against PEFT's loop of four adapters."""

from __future__ import annotations

import torch

from benchmarks.bench import Bench
from benchmarks.memory import peak
from benchmarks.peers import PeftLoop, SharedEncoder, mean_square
from benchmarks.timing import Ratio
from benchmarks.workloads import BACKBONES, TREES, images, model, traced

SHAPE = "1-1-2-4"


def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for batch in (1, 8):
            _inference(bench, name, batch)
        _training(bench, name, 8)


@torch.no_grad()
def _inference(bench: Bench, name: str, batch: int) -> None:
    backbone, _ = traced(name, bench.device)
    ours, x = model(name, TREES[SHAPE], bench.device), images(batch, bench.device)
    peft, shared = PeftLoop(backbone, ours).to(bench.device), SharedEncoder(backbone, ours).to(bench.device)
    seconds = bench.compare(
        f"four tasks, {name}, batch {batch}",
        {
            "ours": lambda: ours(x),
            "PEFT, four adapters in a loop": lambda: peft(x),
            "one shared encoder with heads": lambda: shared(x),
        },
        base="ours",
        memory=True,
    )
    ratio = Ratio.of(seconds["PEFT, four adapters in a loop"], seconds["ours"])
    bench.goal(f"PEFT's loop over ours, four tasks: {name}, batch {batch}", 2.2, ratio, at_least=True)


def _training(bench: Bench, name: str, batch: int) -> None:
    backbone, _ = traced(name, bench.device)
    ours, x = model(name, TREES[SHAPE], bench.device).train(), images(batch, bench.device)
    peft = PeftLoop(backbone, ours).to(bench.device).train()
    mine = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad])
    theirs = {task: torch.optim.AdamW(peft.trainable(task)) for task in peft.tasks}

    def step() -> None:
        mean_square(ours(x)).backward()
        mine.step()
        mine.zero_grad()

    def loop() -> None:
        for task, optimizer in theirs.items():
            peft.run(task, x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    calls = {"ours": step, "PEFT, four adapters in a loop": loop}
    seconds = bench.compare(f"training step, {name}, batch {batch}", calls, base="ours")
    with bench.precision():
        held = {key: peak(call, bench.device) for key, call in calls.items()}
    ratio = Ratio.of(seconds["PEFT, four adapters in a loop"], seconds["ours"])
    bench.goal(f"PEFT's loop over ours, training step: {name}, batch {batch}", 2.2, ratio, at_least=True)
    bench.goal(
        f"peak memory of a training step over PEFT's: {name}, batch {batch}",
        1.0,
        held["ours"] / held["PEFT, four adapters in a loop"],
    )
