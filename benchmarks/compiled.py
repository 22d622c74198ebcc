"""torch.compile: no graph break, no new compilation for batches of one size, equal outputs, and what it gains."""

from __future__ import annotations

import torch

from benchmarks.bench import Bench
from benchmarks.workloads import TREES, images, model


@torch.no_grad()
def measure(bench: Bench) -> None:
    torch._dynamo.reset()
    x = images(8, bench.device)
    eager = model("ViT-S", TREES["1-1-2-4"], bench.device)
    expected = eager(x)
    explained = torch._dynamo.explain(eager)(x)
    bench.goal("graph breaks of torch.compile", 0, explained.graph_break_count)
    torch._dynamo.reset()
    made = torch.compile(eager)
    found = made(x)
    worst = max(float((found[t] - expected[t]).abs().max() / expected[t].abs().max()) for t in expected)
    bench.goal("largest difference of a compiled output, relative", 1e-4, worst)
    counters = torch._dynamo.utils.counters
    before = counters["stats"]["unique_graphs"]
    for _ in range(3):
        made(torch.randn_like(x))
    bench.goal("new compilations for three batches of one size", 0, counters["stats"]["unique_graphs"] - before)
    bench.compare("torch.compile, ViT-S, batch 8", {"eager": lambda: eager(x), "compiled": lambda: made(x)}, "eager")
