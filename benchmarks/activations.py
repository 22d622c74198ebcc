"""What training keeps: nothing before the first trainable parameter, half or less where blocks are recomputed."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.step import Step, weighted_square
from benchmarks.workloads import BACKBONES, LORA, TREES


def measure(bench: Bench) -> None:
    for name in BACKBONES:
        if bench.wants("activations"):
            _before_the_first_adapter(bench, name)
        _recomputed(bench, name)


def _before_the_first_adapter(bench: Bench, name: str) -> None:
    work = bench.training
    _, spec = work.traced(name)
    last = [site.name for site in LORA.select_sites(spec) if site.level == len(spec.levels) - 1]
    deep = work.model(name, TREES["1-1-1-1"], bt.LoRA(r=16, target_modules=last)).train()
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
    with bench.autocast(), saved_tensors_hooks(keep, lambda tensor: tensor):
        deep.backbone(work.images(work.batches[-1]))
    handle.remove()
    bench.goal(f"bytes kept before the first adapter: {name}", 0, early[0])


def _recomputed(bench: Bench, name: str) -> None:
    work, batch = bench.training, bench.training.batches[-1]
    what = f"training step with blocks recomputed, {name}, batch {batch}"
    if not bench.wants(what):
        return
    x = work.images(batch)
    plain, again = (work.model(name, TREES["1-1-2-4"], checkpoint_levels=levels).train() for levels in (False, True))
    calls = {
        "plain": Step(bench, plain.parameters(), lambda: weighted_square(plain(x))),
        "recomputed": Step(bench, again.parameters(), lambda: weighted_square(again(x))),
    }
    found = bench.compare(what, calls, base="plain", memory=True)
    share = found.peaks["recomputed"] / found.peaks["plain"]
    name = f"peak memory beyond weights with recomputed blocks over without: {name}, batch {batch}"
    bench.goal(name, 0.5, share, of=found, sides=("plain", "recomputed"))
