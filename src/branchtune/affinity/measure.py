"""`measure_affinity`: fitted decoders -> per-sample gradients -> matrices with their errors."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.affinity.collect import Progress, collect
from branchtune.affinity.estimator import Estimator
from branchtune.affinity.gradients import (
    PerSampleGradients,
    SampleLoop,
    adapter_parameters,
    site_weights,
)
from branchtune.affinity.lora_gradients import LoRAGradients, is_plain_lora
from branchtune.affinity.matrix import Affinity, AffinityCost, Normalize, Source
from branchtune.affinity.mean_cosine import MeanCosine
from branchtune.affinity.paired_similarity import PairedSimilarity
from branchtune.backbone.check import check_module
from branchtune.backbone.spec import BackboneSpec
from branchtune.decoder_fit import fit_decoders
from branchtune.decoders.decoder import Decoder
from branchtune.errors import UserError, check_instance, unknown
from branchtune.model import MultiTaskModel
from branchtune.scalars import whole
from branchtune.tasks.check import check_tasks
from branchtune.tasks.task import Task


def measure_affinity(
    backbone: nn.Module,
    tasks: Sequence[Task],
    loader: Iterable[Mapping[str, Any]],
    *,
    adapter: Adapter | None = None,
    decoder: Decoder | None = None,
    normalize: Normalize = "none",
    source: Source = "adapters",
    samples: int = 256,
    decoder_steps: int = 200,
    decoder_lr: float = 1e-3,
    decoders: nn.ModuleDict | Mapping[str, Tensor] | None = None,
    levels: str | list[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    example_inputs: Mapping[str, Tensor] | None = None,
    spec: BackboneSpec | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Affinity:
    """Which tasks pull the shared parameters in the same direction (arXiv 2509.19602, gradient similarity).

    Gradients are those of one shared tree at initialisation, in eval mode, after the decoders were fitted on the frozen
    backbone. The user's backbone is left as it was, and so is torch's random state.

    Args:
        backbone: see `MultiTaskModel`; the measurement runs on its device and in its precision.
        tasks: the tasks to compare.
        loader: batches `{"id", "image" [B, 3, H, W], "<task>": [B, ...]}` in random order; a task absent from a batch
            has no label there. Its batch size bounds the memory.
        adapter: the adapter family whose gradients are compared, default LoRA(); for "weights" it names the sites.
        decoder: of the dense tasks.
        normalize: "none": plain cosine over all pairs of different samples. "elementwise" and "per_tensor" divide both
            gradients by |g| + |g'| first, over disjoint pairs.
        source: gradients of the "adapters", or of the frozen "weights" at their sites (one sample at a time, slower).
        samples: images to use; a loader that runs out gives fewer.
        decoder_steps: of fitting the decoders; with 0 they are random.
        decoder_lr: learning rate of fitting them.
        decoders: fitted decoders (`MultiTaskModel.decoders` or its state) instead of fitting.
        levels: see `MultiTaskModel`.
        image_size: see `MultiTaskModel`.
        example_inputs: see `MultiTaskModel`; a batch holds the values under the same names.
        spec: see `MultiTaskModel`.
        seed: of adapters, decoders and a loader that shuffles with torch's global generator.
        progress: called as `progress(step, done, total)`, with step "decoders" or "affinity".

    Raises:
        UserError: fewer than two labelled samples of a task, a batch that does not fit the tasks, gradients
            that are not finite, decoders that do not fit.
    """
    for what, value, kind in (("normalize", normalize, Normalize), ("source", source, Source)):
        if value not in get_args(kind):
            raise unknown(what, value, get_args(kind))
    samples, decoder_steps = whole("samples", samples), whole("decoder_steps", decoder_steps)
    if samples < 2:
        raise UserError(f"samples={samples}: affinity compares different samples, use at least 2")
    by_name = check_tasks(tasks)
    check_module(backbone)
    check_instance("adapter", adapter, Adapter, "LoRA(r=8)")
    names = list(by_name)
    adapter = adapter or LoRA()
    # A caller may be inside no_grad or inference_mode.
    with torch.inference_mode(False), torch.enable_grad(), _seeded(seed, backbone):
        # In the order of their names, so that decoders, and with them the result, do not depend on the order given.
        model = MultiTaskModel(
            backbone,
            [by_name[name] for name in sorted(by_name)],
            adapter=adapter if source == "adapters" and not is_plain_lora(adapter) else None,
            decoder=decoder,
            levels=levels,
            image_size=image_size,
            example_inputs=example_inputs,
            spec=spec,
        )
        inputs = tuple(example_inputs or ())
        fit_seconds, fit_images = _prepare_decoders(
            model, loader, decoders, decoder_steps, decoder_lr, inputs, progress
        )
        # Anew, so that neither A nor the order of the samples depends on how the decoders were fitted.
        torch.manual_seed(seed)
        model.eval().requires_grad_(False)
        gradients = _gradients(model, adapter, source)
        estimator: Estimator = (
            MeanCosine(len(model.tasks), gradients.layout)
            if normalize == "none"
            else PairedSimilarity(len(model.tasks), gradients.layout, normalize)
        )
        start = time.perf_counter()
        images, counts = collect(model, gradients, estimator, loader, samples, inputs, progress)
        fitted = {name: value.detach().clone() for name, value in model.decoders.state_dict().items()}
    estimate = estimator.estimate().reordered([list(model.tasks).index(name) for name in names])
    return Affinity(
        tuple(names),
        # Means of cosines, which rounding can carry past 1.
        np.clip(estimate.overall, -1.0, 1.0),
        np.clip(estimate.per_level, -1.0, 1.0),
        estimate.overall_error,
        estimate.per_level_error,
        spec=model.spec,
        normalize=normalize,
        source=source,
        samples={name: counts[name] for name in names},
        seeds=(seed,),
        cost=AffinityCost(time.perf_counter() - start, images, sum(counts.values()), fit_seconds, fit_images),
        decoders=fitted,
    )


@contextmanager
def _seeded(seed: int, backbone: nn.Module) -> Iterator[None]:
    devices = {p.device for p in backbone.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        torch.manual_seed(seed)
        yield


def _prepare_decoders(
    model: MultiTaskModel,
    loader: Iterable[Mapping[str, Any]],
    decoders: nn.ModuleDict | Mapping[str, Tensor] | None,
    steps: int,
    lr: float,
    inputs: Collection[str],
    progress: Progress | None,
) -> tuple[float, int]:
    """Seconds and images of the fit."""
    if decoders is not None:
        state = decoders.state_dict() if isinstance(decoders, nn.Module) else decoders
        try:
            model.decoders.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the decoders given do not fit these tasks and this backbone: {reason}") from error
        return 0.0, 0
    start = time.perf_counter()
    report = (lambda step, losses: progress("decoders", step, steps)) if progress else None
    images = fit_decoders(model, loader, steps, lr, on_step=report, inputs=inputs)
    return time.perf_counter() - start, images


def _gradients(model: MultiTaskModel, adapter: Adapter, source: Source) -> PerSampleGradients:
    if source == "weights":
        return SampleLoop(model, site_weights(model, adapter.select_sites(model.spec)))
    if is_plain_lora(adapter):
        return LoRAGradients(model, adapter)
    return SampleLoop(model, adapter_parameters(model))
