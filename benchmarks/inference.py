"""Folded and merged inference against the frozen work alone, for trees, backbones, batch sizes and adapter families."""

from __future__ import annotations

import torch

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.limit import FrozenWork, PlainPerGroup
from benchmarks.timing import Ratio
from benchmarks.workloads import BACKBONES, TREES, images, model, traced


@torch.no_grad()
def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for batch in (1, 8):
            for shape in TREES:
                _one(bench, name, shape, batch)


def _one(bench: Bench, name: str, shape: str, batch: int) -> None:
    groups, x = TREES[shape], images(batch, bench.device)
    backbone, spec = traced(name, bench.device)
    live = model(name, groups, bench.device)
    merged = live.merge(levels="all")
    bottleneck = model(name, groups, bench.device, bt.Bottleneck())
    seconds = bench.compare(
        f"features, {name}, {shape}, batch {batch}",
        {
            "frozen work": FrozenWork(backbone, spec, groups, x),
            "folded, LoRA r=16": lambda: live.backbone(x),
            "folded, bottleneck": lambda: bottleneck.backbone(x),
            "plain levels, once per group": PlainPerGroup(backbone, spec, groups, x),
            "merged": lambda: merged.backbone(x),
            "our model, task by task": lambda: [live.backbone(x, [task]) for task in live.tasks],
        },
        base="frozen work",
        memory=batch == 8,
    )
    folded = Ratio.of(seconds["folded, LoRA r=16"], seconds["frozen work"])
    bench.goal(f"folded over frozen work: {name}, {shape}, batch {batch}", 1.10, folded)
    merging = Ratio.of(seconds["merged"], seconds["plain levels, once per group"])
    bench.goal(f"merged over plain levels: {name}, {shape}, batch {batch}", 1.02, merging)
