"""From 4 to 32 tasks on a tree that shares all but the last level; planning, building and saving of large trees."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

import branchtune as bt
from benchmarks.bench import Bench, Compared
from benchmarks.limit import FrozenWork
from benchmarks.timing import Call, Quartiles
from benchmarks.workloads import LORA

COUNTS = (1, 2, 4, 8, 16, 32)


def measure(bench: Bench) -> None:
    _features(bench)
    _large_trees(bench)


@torch.no_grad()
def _features(bench: Bench) -> None:
    what = "features by number of tasks, Swin-T, 1-1-1-T"
    if not bench.wants(what):
        return
    backbone, spec = bench.serving.traced("Swin-T")
    x = bench.serving.images(1)
    calls: dict[str, Call] = {}
    for count in COUNTS:
        made = bench.serving.model("Swin-T", (1, 1, 1, count), tasks=_depths(count))
        calls[f"T = {count}"] = partial(made.backbone, x)
        calls[f"frozen work, T = {count}"] = FrozenWork(backbone, spec, (1, 1, 1, count), x)
    found = bench.compare(what, calls, base="T = 4")
    sides = ("T = 32", "T = 4")
    bench.goal("T = 32 over T = 4, each over its frozen work", 1.3, _over_frozen_work(found), of=found, sides=sides)
    # Divided by all nodes, the three shared ones would hide what a further task costs, as T = 4 has so few others.
    bench.goal("T = 32 over T = 4, seconds per node of the last level", 1.3, _per_node(found), of=found, sides=sides)
    whole = Quartiles.quotient(*([s / (3 + n) for s in found.seconds[f"T = {n}"]] for n in (32, 4)))
    bench.note(what, name="T = 32 over T = 4, seconds per node of all levels", **vars(whole))


def _over_frozen_work(found: Compared) -> Quartiles:
    four, many = (
        [a / b for a, b in zip(found.seconds[f"T = {n}"], found.seconds[f"frozen work, T = {n}"], strict=True)]
        for n in (4, 32)
    )
    return Quartiles.quotient(many, four)


def _per_node(found: Compared) -> Quartiles:
    """What each node of the last level adds to the time of T = 1."""
    four, many = (
        [(a - b) / (n - 1) for a, b in zip(found.seconds[f"T = {n}"], found.seconds["T = 1"], strict=True)]
        for n in (4, 32)
    )
    return Quartiles.quotient(many, four)


def _large_trees(bench: Bench) -> None:
    what = "32 tasks, Swin-T"
    if not bench.wants(what):
        return
    backbone, spec = bench.training.traced("Swin-T")
    tasks, decoder = _depths(32), bt.LightDecoder(32, 8)
    names = [task.name for task in tasks]
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (32, 32))
    matrix = (noise + noise.T) / 2 + np.eye(32) * (1 - np.diag(noise))
    affinity = bt.Affinity.from_matrix(names, matrix, spec)
    tree = bt.TaskTree([[names], [names], [names], [[name] for name in names]])
    made = bt.MultiTaskModel(backbone, tasks, tree, LORA, decoder, spec=spec)
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {
            "plan within a budget": lambda: bt.plan(affinity, budget=2.0),
            "build, with a traced backbone": lambda: bt.MultiTaskModel(backbone, tasks, tree, LORA, decoder, spec=spec),
            "build, tracing included": lambda: bt.MultiTaskModel(
                backbone, tasks, tree, LORA, decoder, image_size=bench.training.side
            ),
            "save": lambda: made.save_pretrained(Path(folder) / "model"),
        }
        found = bench.compare(what, calls, base="build, tracing included")
    for name in ("plan within a budget", "build, tracing included", "save"):
        seconds = Quartiles.of(found.seconds[name])
        bench.goal(f"32 tasks, seconds to {name}", 1.0, seconds, of=found, sides=(name,))


def _depths(count: int) -> list[bt.Task]:
    return [bt.Depth(f"depth{index:02}") for index in range(count)]
