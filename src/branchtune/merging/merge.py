"""Merge a trained model: choose levels, fold their adapters into copies of the weights, check the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from branchtune.backbone.check import image_channels, placement
from branchtune.backbone.clone import clone_sharing_weights
from branchtune.backbone.levels import LevelBounds
from branchtune.backbone.recorder import Recording
from branchtune.backbone.spec import Site
from branchtune.backbone.trace import record, repeat_inputs
from branchtune.branching import BranchedBackbone
from branchtune.cost import level_costs
from branchtune.errors import UserError
from branchtune.merging.backbone import MergedBackbone
from branchtune.merging.choice import LevelFacts, choose, wanted_levels
from branchtune.merging.model import MergedModel
from branchtune.merging.units import Unit, find_units
from branchtune.merging.weights import weight_problem
from branchtune.model import MultiTaskModel
from branchtune.scalars import whole
from branchtune.snapshot import BackboneSnapshot


@torch.inference_mode(False)
@torch.no_grad()
def merge(
    model: MultiTaskModel,
    levels: str | Sequence[int] = "auto",
    *,
    memory_limit: int | None = None,
    batch_size: int = 1,
    example_inputs: Mapping[str, Tensor] | None = None,
) -> MergedModel:
    """Fold the adapters of a model into copies of its weights; the model and the user's backbone are left as they were.

    Outputs are those of `model` in eval mode, up to rounding; this is checked on two random images. A level with one
    group gets one copy of its adapted weights and runs as the plain backbone does. A level with G groups gets G copies
    and runs its modules once for every group that the asked tasks need, on that group's rows alone. Other levels stay
    folded, with live adapters. A merged model cannot be stored in low memory, which would round its adapters.

    Args:
        model: trained, on the device where it will run.
        levels: "all"; "none"; numbers of levels; or "auto": levels with one group, and those with several where one
            pass per group is estimated to be faster than live adapters on the folded batch (by the operations and
            multiply-accumulates of both, with rough rates of the device) by at least a hundredth of the level's time,
            the most seconds per byte first, as long as memory allows. Adapters that are no change of a weight
            (Bottleneck, Comb) stay live.
        memory_limit: most bytes that copies of weights may take beyond one. Default: as much as the backbone with
            "auto", no limit else.
        batch_size: images per call to choose for ("auto").
        example_inputs: further keyword inputs of the backbone for one image, where it needs any.

    Raises:
        UserError: levels of another kind; a level asked for that cannot be merged, or copies beyond the limit; a
            backbone in which merged weights act differently from adapters.
    """
    source = model.backbone
    wanted = wanted_levels(levels, len(source.spec.levels))
    if whole("batch_size", batch_size) < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
    if memory_limit is not None and whole("memory_limit", memory_limit) < 0:
        raise UserError(f"memory_limit={memory_limit}: must be at least 0 bytes")
    plain = clone_sharing_weights(source.frozen).eval()
    one, two = (_record(plain, source, count, example_inputs) for count in (1, 2))
    units: dict[int, Sequence[Unit]] = {}
    facts = []
    for level in range(len(source.spec.levels)):
        sites = [site for site in source.sites.values() if site.level == level]
        problem = _problem(source, sites)
        if sites and problem is None and source.tree.group_counts[level] > 1:
            units[level], left = find_units(plain, source.spec, sites, one, two)
            problem = f"{left[0]} cannot run on the rows of one group alone" if left else None
        facts.append(_facts(source, level, one, two, sites, problem))
    size = sum(parameter.nbytes for parameter in plain.parameters())
    choices = choose(facts, wanted, memory_limit, batch_size, placement(plain).device.type, size)
    merged: dict[int, Sequence[Unit]] = {c.level: units.get(c.level, ()) for c in choices if c.merged}
    backbone = MergedBackbone(source, model.extras, merged)
    _check_same(BackboneSnapshot(source, model.extras), backbone, example_inputs)
    return MergedModel(model, backbone, choices)


def _facts(
    source: BranchedBackbone, level: int, one: Recording, two: Recording, sites: Sequence[Site], problem: str | None
) -> LevelFacts:
    cost = level_costs(source.spec, source.adapter)[level]
    weights: list[Any] = [] if problem else [source.frozen.get_submodule(site.name).weight for site in sites]
    return LevelFacts(
        level,
        source.tree.group_counts[level],
        len(sites),
        one.level_operations[level],
        cost.frozen_macs,
        cost.adapter_macs,
        2 * one.level_macs[level] - two.level_macs[level],
        sum(weight.numel() for weight in weights),
        max((weight.element_size() for weight in weights), default=0),
        problem,
    )


def _problem(source: BranchedBackbone, sites: Sequence[Site]) -> str | None:
    for site in sites:
        assert source.adapter is not None
        problem = source.adapter.merge_problem(site)
        if problem is not None:
            return f"{type(source.adapter).__name__} {problem}"
        problem = weight_problem(source.frozen.get_submodule(site.name))
        if problem is not None:
            return f"{site.name} {problem}"
    return None


def _images(backbone: BranchedBackbone, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, image_channels(backbone.frozen), *backbone.spec.image_size)
    return torch.rand(shape, generator=generator).to(placement(backbone.frozen))


def _record(plain: Any, source: BranchedBackbone, count: int, example_inputs: Mapping[str, Tensor] | None) -> Recording:
    bounds = tuple(LevelBounds(level.start, level.end) for level in source.spec.levels)
    try:
        return record(plain, bounds, _images(source, count), example_inputs)
    except UserError as error:
        if example_inputs is not None:
            raise
        raise UserError(f"{error}; where the backbone needs more than images, pass example_inputs=") from error


def _check_same(live: BackboneSnapshot, merged: MergedBackbone, example_inputs: Mapping[str, Tensor] | None) -> None:
    """Code that reads the weight of an adapted layer beside calling it would see the merged one: observe it."""
    images = _images(live, 2)
    tolerance = 1e-3 if images.dtype.itemsize >= 4 else 5e-2
    inputs = repeat_inputs(example_inputs, 2)
    expected, found = (backbone(images, inputs=inputs) for backbone in (live, merged))
    for task, maps in expected.items():
        for level, (one, two) in enumerate(zip(maps, found[task], strict=True)):
            scale = one.abs().max().clamp_min(1e-12)
            if not torch.allclose(one / scale, two / scale, rtol=0, atol=tolerance, equal_nan=True):
                raise UserError(
                    f"{live.spec.name}: the features of task {task!r} at level {level} change when adapters are merged "
                    "into weights, which its code must use in more than one way: leave this level and those before "
                    "it out of levels="
                )
