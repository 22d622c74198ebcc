"""Folded and merged inference against the frozen work alone, for trees, backbones, batch sizes and adapter families."""

from __future__ import annotations

from functools import partial
from statistics import median

import torch

import branchtune as bt
from benchmarks.bench import BRIEF, TIGHT, Bench
from benchmarks.limit import FrozenWork, PlainPerGroup
from benchmarks.timing import Call
from benchmarks.workloads import BACKBONES, COMB, TREES

FROZEN = "frozen work"
NO_LIMIT = 2**60  # bytes: what is held against a bound is the model of costs, not the default limit on copies
WITH_COMB = ("Swin-T", "ViT-S")  # it needs blocks with a plain MLP


@torch.no_grad()
def measure(bench: Bench) -> None:
    for name in BACKBONES:
        for batch in bench.serving.batches:
            for shape in bench.serving.trees:
                _against_the_limits(bench, name, shape, batch)
            for shape in ("1-1-1-1", "1-1-2-4"):
                _other_ways(bench, name, shape, batch)


def _against_the_limits(bench: Bench, name: str, shape: str, batch: int) -> None:
    what, case = f"features, {name}, {shape}, batch {batch}", f"{name}, {shape}, batch {batch}"
    if not bench.wants(what):
        return
    work, groups = bench.serving, TREES[shape]
    backbone, spec = work.traced(name)
    x, live = work.images(batch), work.model(name, groups)
    merged, chosen = live.merge(levels="all"), live.merge(batch_size=batch, memory_limit=NO_LIMIT)
    found = bench.compare(
        what,
        {
            FROZEN: FrozenWork(backbone, spec, groups, x),
            "folded, LoRA r=16": lambda: live.backbone(x),
            "plain levels, once per group": PlainPerGroup(backbone, spec, groups, x),
            "merged": lambda: merged.backbone(x),
            "merged where it pays": lambda: chosen.backbone(x),
        },
        base=FROZEN,
        memory=batch == work.batches[-1],
        effort=TIGHT,
    )
    bench.note(what, name="merged where it pays", choices=chosen.describe().splitlines())
    bench.within(f"folded over frozen work: {case}", 1.10, found, "folded, LoRA r=16", FROZEN, counted=True)
    bench.within(f"merged over plain levels: {case}", 1.02, found, "merged", "plain levels, once per group")
    better = min(("folded, LoRA r=16", "merged"), key=lambda way: median(found.seconds[way]))
    bench.within(f"merge() over the better of folded and merged: {case}", 1.05, found, "merged where it pays", better)


def _other_ways(bench: Bench, name: str, shape: str, batch: int) -> None:
    what = f"other adapters, {name}, {shape}, batch {batch}"
    if not bench.wants(what):
        return
    work, groups = bench.serving, TREES[shape]
    backbone, spec = work.traced(name)
    x, live, bottleneck = work.images(batch), work.model(name, groups), work.model(name, groups, bt.Bottleneck())
    calls: dict[str, Call] = {
        FROZEN: FrozenWork(backbone, spec, groups, x),
        "folded, bottleneck": lambda: bottleneck.backbone(x),
        "LoRA, task by task": lambda: [live.backbone(x, [task]) for task in live.tasks],
    }
    if name in WITH_COMB:
        calls["comb"] = partial(work.model(name, groups, COMB).backbone, x)
    bench.compare(what, calls, base=FROZEN, memory=batch == work.batches[-1], effort=BRIEF)
