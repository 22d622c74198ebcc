"""What each optimisation gains over the plain way that it replaces, at equal numbers: one that gains nothing goes.

Folding against task by task, merging, recomputed blocks, gradients per sample and compilation have groups of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

import branchtune as bt
from benchmarks.bench import TIGHT, Bench, Compared
from benchmarks.goal import largest
from benchmarks.step import weighted_square
from benchmarks.timing import Call
from benchmarks.workloads import LORA, TREES, four_tasks
from branchtune import branching
from branchtune.adapters import lora_layers
from branchtune.backbone.spec import Site
from branchtune.decoders import light_module
from branchtune.frozen_linear import FrozenCall
from branchtune.reach import Nodes

ON, OFF = "ours", "plain"
SHAPE = TREES["1-1-2-4"]


def measure(bench: Bench) -> None:
    batch = bench.training.batches[-1]
    _inference(bench, batch)
    _resizing(bench, batch)
    _optimizer(bench)
    _training(bench, batch)


@torch.no_grad()
def _inference(bench: Bench, batch: int) -> None:
    """The update of all groups in one product, and written into the frozen layer's output."""
    x = bench.serving.images(batch)
    ways = {
        "updates written into the output": partial(patch.object, lora_layers, "_own", lambda output: None),
        "one product for all groups": partial(
            patch.object, lora_layers.LoRALinear, "adapt", staticmethod(group_by_group)
        ),
    }
    for title, off in ways.items():
        what = f"{title}, Swin-T, 1-1-2-4, batch {batch}"
        if not bench.wants(what):
            continue
        live = bench.serving.model("Swin-T", SHAPE)

        ours, plain = partial(live.backbone, x), partial(_under, off, live.backbone, x)
        _held(bench, what, title, {ON: ours, OFF: plain}, _maps(ours()), _maps(plain()))


def _under(off: Callable[[], AbstractContextManager[object]], call: Callable[..., Any], *arguments: Any) -> Any:
    with off():
        return call(*arguments)


def group_by_group(site: Site, nodes: Nodes, inputs: Tensor, output: Tensor, scale: float) -> Tensor:
    """The naive twin of `LoRALinear.adapt`: y + s B A x of one group after the other."""
    parts = []
    downs, ups = nodes.stack("lora_A"), nodes.stack("lora_B")
    for down, up, x, y in zip(downs, ups, inputs.chunk(len(nodes)), output.chunk(len(nodes)), strict=True):
        if site.kind == "linear":
            update = F.linear(F.linear(x, down), up)
        else:
            update = F.conv2d(F.conv2d(x, down[:, :, None, None], stride=site.stride), up[:, :, None, None])
        parts.append(y + scale * update)
    return torch.cat(parts)


def _resizing(bench: Bench, batch: int) -> None:
    """The gradient of bilinear resampling as matrix products, in a training step of the four decoders."""
    title = "gradient of resizing as products"
    what = f"{title}, decoders of Swin-T, batch {batch}"
    if not bench.wants(what):
        return
    work = bench.training
    _, spec = work.traced("Swin-T")
    torch.manual_seed(0)
    maps = [level.feature for level in spec.levels]
    inputs = [torch.randn(batch, f.channels, f.height, f.width, device=bench.device) for f in maps]
    family, channels = bt.LightDecoder(32, 4), [f.channels for f in maps]
    decoders = [family.build(channels, task.out_channels).to(bench.device).train() for task in four_tasks()]
    size = (work.side, work.side)

    def ours() -> list[Tensor]:
        with bench.autocast():
            loss = torch.stack([decoder(inputs, size).square().mean() for decoder in decoders]).sum()
        return list(torch.autograd.grad(loss, [p for decoder in decoders for p in decoder.parameters()]))

    plain = partial(_under, partial(patch.object, light_module, "resize", interpolate), ours)
    _held(bench, what, title, {ON: ours, OFF: plain}, ours(), plain())


def interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The naive twin of `branchtune.decoders.resample.resize`."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _optimizer(bench: Bench) -> None:
    """torch's fused AdamW, which `WeightedSum` takes on a CPU, against torch's default."""
    title = "fused AdamW"
    what = f"{title}, Swin-T, 1-1-2-4"
    if bench.device.type != "cpu" or not bench.wants(what):
        return
    calls: dict[str, Call] = {}
    trained: dict[str, list[Tensor]] = {}
    for key in (ON, OFF):
        model = bench.training.model("Swin-T", SHAPE, LORA)
        parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        generator = torch.Generator().manual_seed(0)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        fused = bt.WeightedSum().build(model)
        default = torch.optim.AdamW([{k: g[k] for k in ("params", "lr", "weight_decay")} for g in fused.param_groups])
        calls[key] = (fused if key == ON else default).step
        calls[key]()
        trained[key] = parameters
    _held(bench, what, title, calls, trained[ON], trained[OFF])


def _training(bench: Bench, batch: int) -> None:
    """What adapters read computed again, which saves memory, and a frozen layer with its update as one step."""
    again, together = "inputs of adapters computed again", "layer and update as one step"
    ways = {
        again: partial(patch.object, branching, "sources_noted", lambda wanted: nullcontext()),
        together: partial(patch.object, FrozenCall, "of", lambda *_: None),
    }
    for title, off in ways.items():
        what = f"{title}, training step, Swin-T, 1-1-2-4, batch {batch}"
        if not bench.wants(what):
            continue
        x, model = bench.training.images(batch), bench.training.model("Swin-T", SHAPE).train()
        ours = partial(_gradients, bench, model, x)
        plain = partial(_under, off, ours)
        least, saves = (0.95, True) if title == again else (1.0, False)
        found = _held(bench, what, title, {ON: ours, OFF: plain}, ours(), plain(), least, memory=saves)
        if saves:
            peaks = found.peaks[ON] / found.peaks[OFF]
            bench.goal(f"peak memory, ours over plain: {what}", 0.9, peaks, of=found, sides=(ON, OFF))


def _gradients(bench: Bench, model: bt.MultiTaskModel, x: Tensor) -> list[Tensor]:
    """Of the adapters, from one pass forward and one back."""
    model.zero_grad()
    torch.manual_seed(0)
    with bench.autocast():
        loss = weighted_square(model(x))
    loss.backward()
    return [p.grad for p in model.backbone.adapters.parameters() if p.grad is not None]


def _held(
    bench: Bench,
    what: str,
    title: str,
    calls: Mapping[str, Call],
    ours: list[Tensor],
    plain: list[Tensor],
    least: float = 1.0,
    memory: bool = False,
) -> Compared:
    """Equal numbers, and at least as fast, or `least` times where memory is what is gained."""
    apart = largest(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, plain, strict=True))
    bench.goal(f"largest relative difference: {title}", 1e-4 if ours[0].dtype == torch.float32 else 0.1, apart)
    found = bench.compare(what, calls, base=ON, effort=TIGHT, memory=memory)
    bench.goal(f"plain over ours: {what}", least, found.over(OFF, ON), True, found, (OFF, ON))
    return found


def _maps(features: dict[str, list[Tensor]]) -> list[Tensor]:
    return [level for levels in features.values() for level in levels]
