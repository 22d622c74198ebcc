"""From 4 to 32 tasks on a tree that shares all but the last level; planning, building and saving of large trees."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.limit import FrozenWork
from benchmarks.timing import Ratio
from benchmarks.workloads import LORA, images, model, traced

COUNTS = (1, 2, 4, 8, 16, 32)


def measure(bench: Bench) -> None:
    backbone, spec = traced("Swin-T", bench.device)
    x = images(1, bench.device)
    calls = {}
    for count in COUNTS:
        made = model("Swin-T", (1, 1, 1, count), bench.device, tasks=_depths(count))
        calls[f"T = {count}"] = torch.no_grad()(lambda made=made: made.backbone(x))
        calls[f"frozen work, T = {count}"] = FrozenWork(backbone, spec, (1, 1, 1, count), x)
    seconds = bench.compare("features by number of tasks, Swin-T, 1-1-1-T", calls, base="T = 4")
    four = Ratio.of(seconds["T = 4"], seconds["frozen work, T = 4"]).median
    many = Ratio.of(seconds["T = 32"], seconds["frozen work, T = 32"])
    bench.goal("T = 32 over T = 4, each over its frozen work", 1.3, Ratio(*(v / four for v in vars(many).values())))
    per_node = {count: [s / (3 + count) for s in seconds[f"T = {count}"]] for count in (4, 32)}
    bench.goal("T = 32 over T = 4, seconds per node", 1.3, Ratio.of(per_node[32], per_node[4]))
    _large_trees(bench)


def _large_trees(bench: Bench) -> None:
    backbone, spec = traced("Swin-T", bench.device)
    tasks = _depths(32)
    names = [task.name for task in tasks]
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (32, 32))
    matrix = (noise + noise.T) / 2 + np.eye(32) * (1 - np.diag(noise))
    affinity = bt.Affinity.from_matrix(names, matrix, spec)
    tree = bt.TaskTree([[names], [names], [names], [[name] for name in names]])
    bench.goal("seconds to plan 32 tasks within a budget", 1.0, _taken(lambda: bt.plan(affinity, budget=2.0)))
    made: list[bt.MultiTaskModel] = []
    decoder = bt.LightDecoder(32, 8)
    build = _taken(lambda: made.append(bt.MultiTaskModel(backbone, tasks, tree, LORA, decoder, spec=spec)))
    bench.goal("seconds to build a model of 32 tasks", 1.0, build)
    with tempfile.TemporaryDirectory() as folder:
        save = _taken(lambda: made[0].save_pretrained(Path(folder) / "model"))
    bench.goal("seconds to save a model of 32 tasks", 1.0, save)


def _depths(count: int) -> list[bt.Task]:
    return [bt.Depth(f"depth{index:02}") for index in range(count)]


def _taken(call: Callable[[], object]) -> float:
    """The quickest of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
