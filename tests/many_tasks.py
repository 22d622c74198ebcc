"""A finished run as if it had many tasks, and a gallery of as many, for what grows with them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from branchtune.affinity import Affinity
from branchtune.cost import tree_cost
from branchtune.report.page.gallery import Case, ErrorScale, Gallery, Panel
from branchtune.report.page.run_data import RunData
from branchtune.tree import TaskTree

EPOCHS = 30


def names_of(count: int) -> list[str]:
    """Of ten letters."""
    return [f"task_{index:05}" for index in range(count)]


def with_tasks(run: RunData, count: int, epochs_of_conflict: int = EPOCHS) -> RunData:
    """The run with these tasks in one group, a metric, a loss and an affinity of each, and their conflict."""
    names, levels = names_of(count), run.model.tree.num_levels
    tree = TaskTree.shared(names, levels)
    results = replace(
        run.results,
        headline=dict.fromkeys(names, "rmse"),
        higher_is_better=dict.fromkeys(names, False),
        metrics={name: {"rmse": 1.0, "loss": 0.5} for name in names},
        tree=tree.to_json(),
        groups=list(tree.group_counts),
    )
    epochs = [
        {"epoch": float(epoch), "train_loss": 1 / (epoch + 1), "val_loss": 2 / (epoch + 1), "rmse": 1.0}
        for epoch in range(EPOCHS)
    ]
    conflict = [
        {"level": level, "node": f"level {level}", "task_a": a, "task_b": b, "epoch": float(epoch), "cosine": 0.5}
        for level in range(levels)
        for a, b in itertools.combinations(names, 2)
        for epoch in range(epochs_of_conflict)
    ]
    return replace(
        run,
        results=results,
        model=replace(run.model, tree=tree),
        cost=tree_cost(run.model.spec, tree, run.model.adapter),
        decoders=dict.fromkeys(names, 1000),
        affinity=Affinity.from_matrix(names, np.full((count, count), 0.5), run.model.spec),
        metrics=dict.fromkeys(names, epochs),
        conflict=conflict,
    )


def noisy_gallery(count: int, height: int, width: int) -> Gallery:
    """Three best and three worst cases, all of whose pictures are noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    def case(id_: str) -> Case:
        panels = {name: Panel(noise[:], noise[:], noise[:], 0.5) for name in names_of(count)}
        return Case(id_, 1.0, noise[:], panels)

    cases = [case(str(index)) for index in range(6)]
    scales = {name: ErrorScale(1.0, "0", "1 and more") for name in names_of(count)}
    return Gallery(cases[:3], cases[3:], 64, "val", scales, {})
