"""Affinity: one backward pass per task against the loop over samples, and its share of training by the NYU recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.timing import Ratio
from benchmarks.workloads import TREES, four_tasks, images, model, traced
from branchtune.affinity.collect import to_batch
from branchtune.affinity.gradients import SampleLoop, adapter_parameters
from branchtune.affinity.lora_gradients import LoRAGradients
from branchtune.batch import read_batch
from branchtune.settings import Settings

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "nyud_swin_tiny_448.yaml"
TRAINING_IMAGES = 795  # of NYU-Depth-v2
BATCH = 8


def measure(bench: Bench) -> None:
    backbone, spec = traced("Swin-T", bench.device)
    adapter, batch = bt.LoRA(r=16), _labelled(bench.device)
    plain, shared = (
        bt.MultiTaskModel(backbone, four_tasks(), None, family, bt.LightDecoder(32, 8), spec=spec)
        .to(bench.device)
        .eval()
        .requires_grad_(False)
        for family in (None, adapter)
    )
    shared.decoders.load_state_dict(plain.decoders.state_dict())
    fast, loop = LoRAGradients(plain, adapter), SampleLoop(shared, adapter_parameters(shared), ())
    trained = model("Swin-T", TREES["1-1-2-4"], bench.device).train()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad])

    def step() -> None:
        found = read_batch(batch, trained.tasks, like=next(trained.parameters()))
        outputs = trained(found.images)
        torch.stack(
            [trained.tasks[name].loss(outputs[name], target) for name, target in found.targets.items()]
        ).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = bench.compare(
        f"affinity, Swin-T, {BATCH} images",
        {
            "training step": step,
            "gradients, one pass per task": partial(_run, fast, to_batch(plain, batch, BATCH, ())),
            "gradients, loop over samples": partial(_run, loop, to_batch(shared, batch, BATCH, ())),
        },
        base="training step",
    )
    quick = seconds["gradients, one pass per task"]
    bench.goal("loop over samples over ours", 5.0, Ratio.of(seconds["gradients, loop over samples"], quick), True)
    recipe = Settings.load(RECIPE).config
    images_trained = recipe.trainer["max_epochs"] * TRAINING_IMAGES
    factor = recipe.affinity.samples / images_trained
    share = Ratio.of([factor * value for value in quick], seconds["training step"])
    bench.goal("affinity as a share of training by the NYU recipe", 0.03, share)


def _run(gradients: Any, batch: Any) -> None:
    for _ in gradients.chunks(batch):
        pass


def _labelled(device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(BATCH, *shape, 224, 224, generator=generator)

    labels = {
        "semseg": (21 * random()).long(),
        "depth": 1 + random(),
        "normals": torch.nn.functional.normalize(random(3) - 0.5, dim=1),
        "edge": (random() > 0.9).float(),
    }
    return {"id": [str(i) for i in range(BATCH)], "image": images(BATCH, device), **labels}
