"""Images per second of the loader alone, beside those of training: which of the two a GPU would wait for.

python scripts/loader_rate.py configs/nyud_deit_tiny.yaml --data.root=NYUD_MT [--data.workers=2 ...]

Takes every key of the configuration. The first epoch decodes the files (and with data.cache keeps them), the second
shows the rate that training sees from then on; training is timed on batches that are already in memory.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

import torch

from branchtune.batch import read_images
from branchtune.progress import Reporter
from branchtune.run.workbench import PLANNED, Workbench
from branchtune.settings import Settings
from branchtune.training.losses import task_losses
from branchtune.tree import TaskTree

STEPS = 8


def main(config: str, overrides: list[str]) -> dict[str, Any]:
    settings = Settings.load(config, overrides)
    bench = Workbench(settings.config, Reporter(quiet=True))
    loader = bench.train_batches()
    rates: dict[str, Any] = {"threads": torch.get_num_threads(), "workers": settings.config.data.workers}
    for epoch, name in enumerate(("loader, first epoch", "loader, second epoch")):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        start = time.perf_counter()
        images = sum(len(batch["id"]) for batch in loader)
        rates[name] = round(images / (time.perf_counter() - start), 1)
    rates["training"] = round(_training_rate(bench, list(itertools.islice(loader, STEPS))), 1)
    return rates


def _training_rate(bench: Workbench, batches: list[Any]) -> float:
    """Of the configuration's method; a planned tree is replaced by one that forks at the third level."""
    names, depth = bench.names, bench.depth
    forked = TaskTree([[names]] * (depth // 2) + [[[name] for name in names]] * (depth - depth // 2))
    model = bench.build(forked if bench.config.method in PLANNED else None).train()
    optimizer = bench.config.optimizer.build(model)
    done, start = 0, 0.0
    for batch in batches:
        losses = task_losses(model(read_images(batch)), batch, model.tasks)
        sum(model.tasks[name].weight * loss for name, loss in losses.items()).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
        if start:  # the first step makes its buffers
            done += len(batch["id"])
        else:
            start = time.perf_counter()
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
