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

from branchtune.batch import read_batch
from branchtune.progress import Reporter
from branchtune.run.workbench import PLANNED, Workbench
from branchtune.settings import Settings
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
        found = read_batch(batch, model.tasks, like=next(model.parameters()))
        outputs = model(found.images)
        losses = [model.tasks[name].loss(outputs[name], target) for name, target in found.targets.items()]
        torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if start:  # the first step makes its buffers
            done += len(batch["id"])
        else:
            start = _now(bench.device)
    return done / (_now(bench.device) - start)


def _now(device: torch.device) -> float:
    """The time at which the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
