"""All four tasks in one pass against PEFT's loop of four adapters, and against one shared encoder."""

from __future__ import annotations

import torch

from benchmarks.bench import Bench
from benchmarks.peers import PeftModels, SharedEncoder
from benchmarks.workloads import BACKBONES, TREES

LOOP = "PEFT, four adapters in a loop"


@torch.no_grad()
def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for batch in bench.serving.batches:
            _inference(bench, name, batch)


def _inference(bench: Bench, name: str, batch: int) -> None:
    what = f"four tasks, {name}, batch {batch}"
    if not bench.wants(what):
        return
    backbone, _ = bench.serving.traced(name)
    ours, x = bench.serving.model(name, TREES["1-1-2-4"]), bench.serving.images(batch)
    peft, shared = PeftModels(backbone, ours), SharedEncoder(backbone, ours)
    found = bench.compare(
        what,
        {"ours": lambda: ours(x), LOOP: lambda: peft(x), "one shared encoder with heads": lambda: shared(x)},
        base="ours",
        memory=True,
    )
    bench.faster(f"PEFT's loop over ours, four tasks: {name}, batch {batch}", 2.2, found, LOOP, "ours")
