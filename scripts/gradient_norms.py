"""How strongly each task pulls the shared adapters when training starts: the norms that task weights can balance.

python scripts/gradient_norms.py configs/scenes_comparison.yaml [--key value ...]

Prints, for each task, the mean norm over batches of the gradient of its weighted loss with respect to the shared
adapters, after the decoders were fitted on the frozen backbone, and the weight at which all tasks would pull as
strongly as the geometric mean of them. Adapters of one task do not notice its weight; shared ones do.
"""

from __future__ import annotations

import itertools
import statistics
import sys

import torch

from branchtune.batch import read_batch
from branchtune.decoder_fit import fit_decoders
from branchtune.progress import Reporter
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.tables.cells import Cells

BATCHES = 24


def main(config: str, overrides: list[str]) -> None:
    settings = Settings.load(config, overrides).but(method="shared")
    reporter = Reporter(quiet=True)
    bench = Workbench(settings.config, reporter)
    bench.seed("decoders")
    model = bench.build(None)
    wanted, batches = settings.config.decoder_fit, bench.endless_batches()
    with reporter.track("fit decoders", wanted.steps) as advance:
        fit_decoders(model, batches, wanted.steps, wanted.lr, on_step=lambda *_: advance(), kind=wanted.kind)
    model.eval()
    adapters = list(model.backbone.adapters.parameters())
    norms: dict[str, list[float]] = {}
    for batch in itertools.islice(batches, BATCHES):
        found = read_batch(batch, model.tasks, like=adapters[0])
        outputs = model(found.images)
        for name, target in found.targets.items():
            loss = model.tasks[name].loss(outputs[name], target)
            gradients = torch.autograd.grad(loss, adapters, retain_graph=True, allow_unused=True)
            flat = torch.cat([g.flatten() for g in gradients if g is not None])
            norms.setdefault(name, []).append(model.tasks[name].weight * flat.norm().item())
    means = {name: statistics.fmean(values) for name, values in norms.items()}
    target = statistics.geometric_mean(means.values())
    body = [
        [name, f"{model.tasks[name].weight:g}", f"{mean:.3f}", f"{model.tasks[name].weight * target / mean:.3g}"]
        for name, mean in means.items()
    ]
    heading = ["task", "weight", "norm", "balanced weight"]
    reporter.table(Cells("Gradient on the shared adapters", heading, body))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
