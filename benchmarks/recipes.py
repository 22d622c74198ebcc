"""What measuring affinity costs beside training, by the recipes for NYU-Depth-v2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.step import Step
from benchmarks.timing import Quartiles
from benchmarks.workloads import labelled, shrinking
from branchtune.affinity.collect import collect
from branchtune.affinity.lora_gradients import LoRAGradients
from branchtune.affinity.mean_cosine import MeanCosine
from branchtune.batch import read_batch
from branchtune.decoder_fit import fit_decoders
from branchtune.progress import Reporter
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings

RECIPES = ("nyud_deit_tiny", "nyud_pvt_v2_b2_448", "nyud_swin_tiny_448")
#: measured without a goal: many short runs plan from one affinity, which is measured all the longer
COMPARISON = "nyud_comparison"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TRAINING_IMAGES = 795  # of NYU-Depth-v2
#: pixels of a batch on a CPU, where the time of an image does not depend on the batch
PIXELS = 8 * 224 * 224
TRAIN, FIT, MEASURING = "training step", "step of fitting decoders", "measuring affinity"


def measure(bench: Bench) -> None:
    for name in (*RECIPES, COMPARISON):
        what = f"affinity by {name}"
        if bench.wants(what):
            _recipe(bench, CONFIGS / f"{name}.yaml", what)


def _recipe(bench: Bench, path: Path, what: str) -> None:
    work = workbench(bench, path)
    config, size = work.config, work.config.data.image_size
    count = config.affinity.batch_size
    if bench.device.type == "cpu":
        count = max(1, min(count, PIXELS // (size[0] * size[1])))
    found = bench.compare(what, _calls(bench, work, count), base=TRAIN)
    trained = config.trainer["max_epochs"] * TRAINING_IMAGES
    measuring, fitting = (
        _share(found.over(MEASURING, TRAIN), config.affinity.samples / trained),
        _share(found.over(FIT, TRAIN), config.decoder_fit.steps * config.data.batch_size / trained),
    )
    # Apart: training begins with the fitted decoders, and fits them without a measurement, too.
    bench.note(what, name="fitting decoders as a share of training", images_per_call=count, **vars(fitting))
    bench.say(f"{what:<38} fitting decoders as a share of training: {fitting}")
    if path.stem in RECIPES:
        name = f"measuring affinity as a share of training: {path.stem}"
        bench.goal(name, 0.03, measuring, of=found, sides=(MEASURING, TRAIN))
    else:
        bench.note(what, name="measuring affinity as a share of training", **vars(measuring))
        bench.say(f"{what:<38} measuring affinity as a share of training, no goal: {measuring}")


def workbench(bench: Bench, path: Path) -> Workbench:
    """What a run by the recipe works with, but for pre-trained weights."""
    device = bench.device
    accelerator, number = ("cpu", "1") if device.type == "cpu" else ("gpu", f"[{device.index or 0}]")
    own = ["--backbone.pretrained=false", f"--trainer.accelerator={accelerator}", f"--trainer.devices={number}"]
    settings = Settings.load(path, own)
    if bench.small:
        options = json.dumps(shrinking(settings.config.backbone.name))
        own += [f"--backbone.kwargs={options}", "--data.image_size=[32,32]"]
        own += ["--adapter_share=null"]  # a fifth of so small a backbone is too little for rank 1
        settings = Settings.load(path, own)
    return Workbench(settings.config, Reporter(quiet=True))


def _calls(bench: Bench, work: Workbench, count: int) -> dict[str, Any]:
    config, tasks = work.config, work.tasks
    model = work.build(work.plan(bt.Affinity.from_matrix(work.names, np.eye(len(tasks)), work.spec))).train()
    fitted, plain = (bt.MultiTaskModel(work.backbone, tasks, decoder=config.decoder, spec=work.spec) for _ in range(2))
    plain.eval().requires_grad_(False)
    assert isinstance(config.adapter, bt.LoRA)
    images = torch.rand(count, 3, *config.data.image_size, generator=torch.Generator().manual_seed(0)).to(bench.device)
    raw = labelled(tasks, images)
    targets = read_batch(raw, model.tasks).targets

    def loss() -> Tensor:
        outputs = model(images)
        return torch.stack([task.weight * task.loss(outputs[n], targets[n]) for n, task in model.tasks.items()]).sum()

    gradients = LoRAGradients(plain, config.adapter)
    estimator = MeanCosine(len(tasks), gradients.layout)
    return {
        TRAIN: Step(bench, model.parameters(), loss),
        FIT: lambda: fit_decoders(fitted, [raw], 1, config.decoder_fit.lr),
        MEASURING: lambda: collect(plain, gradients, estimator, [raw], count, (), None),
    }


def _share(ratio: Quartiles, factor: float) -> Quartiles:
    return Quartiles(*(factor * value for value in vars(ratio).values()))
