"""Per-sample gradients for affinity: one backward pass per task against the loop over samples, at equal numbers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import branchtune as bt
from benchmarks.bench import Bench
from benchmarks.goal import largest
from benchmarks.workloads import LORA, four_tasks, labelled
from branchtune.affinity.collect import to_batch
from branchtune.affinity.gradients import PerSampleGradients, SampleLoop, adapter_parameters
from branchtune.affinity.lora_gradients import LoRAGradients
from branchtune.batch import Batch

FAST, LOOP = "gradients, one pass per task", "gradients, loop over samples"


def measure(bench: Bench) -> None:
    count = bench.training.batches[-1]
    what = f"affinity, Swin-T, {count} images"
    if not bench.wants(what):
        return
    fast, loop, batch = both(bench, count)
    bench.goal(
        "largest relative difference of our per-sample gradients from the loop's", 1e-4, difference(fast, loop, batch)
    )
    found = bench.compare(what, {FAST: partial(run, fast, batch), LOOP: partial(run, loop, batch)}, base=FAST)
    bench.faster("loop over samples over ours", 5.0, found, LOOP, FAST)


def both(bench: Bench, count: int) -> tuple[LoRAGradients, SampleLoop, Batch]:
    """Both ways, with the same decoders and the same A, and a labelled batch."""
    backbone, spec = bench.training.traced("Swin-T")
    plain, shared = (
        bt.MultiTaskModel(backbone, four_tasks(), None, family, bt.LightDecoder(32, 8), spec=spec)
        .eval()
        .requires_grad_(False)
        for family in (None, LORA)
    )
    shared.decoders.load_state_dict(plain.decoders.state_dict())
    fast, loop = LoRAGradients(plain, LORA), SampleLoop(shared, adapter_parameters(shared))
    for probe in fast.probes:
        node = shared.backbone.node_adapters(probe.site.level, 0)[probe.site.key]
        probe.node.load_state_dict(node.state_dict())
    return fast, loop, to_batch(plain, labelled(four_tasks(), bench.training.images(count)), count, ())


def difference(one: PerSampleGradients, other: PerSampleGradients, batch: Batch) -> float:
    """The largest of all differences, relative to the largest gradient of its task."""
    found, expected = run(one, batch), run(other, batch)
    return largest(float((found[t] - expected[t]).abs().max() / expected[t].abs().max()) for t in expected)


def run(gradients: PerSampleGradients, batch: Batch) -> dict[str, Tensor]:
    """Per task `[B, P]`, put together as the library does."""
    parts = [part for _, part in gradients.chunks(batch)]
    return {name: torch.cat([part[name] for part in parts]) for name in batch.targets}
