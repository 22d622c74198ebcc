"""What training keeps: nothing before the first trainable parameter, half or less where blocks are recomputed."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.memory import peak
from benchmarks.peers import mean_square
from benchmarks.workloads import BACKBONES, LORA, TREES, images, model, traced


def measure(bench: Bench) -> None:
    for name in BACKBONES:
        _before_the_first_adapter(bench, name)
        _recomputed(bench, name)


def _before_the_first_adapter(bench: Bench, name: str) -> None:
    _, spec = traced(name, bench.device)
    last = [site.name for site in LORA.select_sites(spec) if site.level == len(spec.levels) - 1]
    deep = model(name, TREES["1-1-1-1"], bench.device, bt.LoRA(r=16, target_modules=last)).train()
    weights = {p.untyped_storage().data_ptr() for p in deep.parameters()}
    kept: dict[int, int] = {}
    early: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    first = deep.backbone.frozen.get_submodule(last[0])
    handle = first.register_forward_pre_hook(lambda *_: early.append(sum(kept.values())))
    with bench.precision(), saved_tensors_hooks(keep, lambda tensor: tensor):
        deep.backbone(images(8, bench.device))
    handle.remove()
    bench.goal(f"bytes kept before the first adapter: {name}", 0, early[0])


def _recomputed(bench: Bench, name: str) -> None:
    x = images(8, bench.device)
    held = {}
    for levels in (False, True):
        made = model(name, TREES["1-1-2-4"], bench.device, checkpoint_levels=levels).train()
        optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad])

        with bench.precision():
            held[levels] = peak(partial(_step, made, optimizer, x), bench.device)
    bench.measured.append({"what": f"training step, {name}, batch 8", "plain": held[False], "recomputed": held[True]})
    bench.goal(f"peak memory with recomputed blocks over without: {name}", 0.5, held[True] / held[False])


def _step(model: bt.MultiTaskModel, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    mean_square(model(x)).backward()
    optimizer.step()
    optimizer.zero_grad()
