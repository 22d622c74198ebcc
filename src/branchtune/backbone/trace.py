"""Trace a backbone: one image, another image, and both together tell where its levels are and what can be a site.

A layer can carry a hook-based adapter only if its module is called, with the batch as the first dimension, and
without mixing the images of the batch. All three are observed here rather than assumed, because an adapter on a
layer whose code reads `module.weight` directly would train and never act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.check import check_module, image_channels, placement
from branchtune.backbone.clone import clone_sharing_weights
from branchtune.backbone.features import feature_of, to_map
from branchtune.backbone.levels import LevelBounds, resolve_levels
from branchtune.backbone.recorder import Recorder, Recording, fingerprint
from branchtune.backbone.sites import classify_sites
from branchtune.backbone.spec import BackboneSpec, Feature, Level, SideInput
from branchtune.errors import UserError
from branchtune.scalars import whole


def trace_backbone(
    backbone: nn.Module,
    levels: str | list[str] | tuple[str, ...] | None = None,
    image_size: int | tuple[int, int] | None = None,
    example_inputs: Mapping[str, Tensor] | None = None,
) -> BackboneSpec:
    """Find the levels, feature shapes, sites and costs of a backbone. The backbone is left as it was.

    Args:
        backbone: a timm model with `feature_info`, or any sequential module whose operations keep the batch first.
        levels: see `resolve_levels`.
        image_size: height and width to trace at; default: the size the backbone was built for.
        example_inputs: further keyword inputs of the backbone for one image (batch 1), such as an attention mask.

    Raises:
        UserError: the backbone cannot take the size, mixes the images of a batch, does not run its levels in the
            order given, or has no site at all.
    """
    check_module(backbone)
    bounds = resolve_levels(backbone, levels)
    size = _image_size(backbone, image_size)
    # The caller may be inside no_grad or inference_mode; which parameters the features depend on is read from the
    # autograd graph, and inference mode hides operations from the counter.
    with torch.inference_mode(False), torch.enable_grad():
        model = clone_sharing_weights(backbone).eval().requires_grad_(True)
        tensor = placement(backbone)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, image_channels(backbone), *size, generator=generator).to(tensor)
        first = record(model, bounds, images[:1], example_inputs)
        parameters = _reached_parameters(model, list(first.taps.values()))
        with torch.no_grad():
            second = record(model, bounds, images[1:], example_inputs, counts=False)
            both = record(model, bounds, images, example_inputs)
    _check_bounds(backbone, bounds, first, both)
    _check_batch(backbone, first, second, both, tolerance=1e-3 if tensor.dtype.itemsize >= 4 else 5e-2)
    features, indices = _features(model, bounds, first, images[:1], size)
    # What does not grow with the batch (a network over relative positions) is not repeated by a branch either.
    macs = [pair - one for one, pair in zip(first.level_macs, both.level_macs, strict=True)]
    once = sum(first.level_macs) - sum(macs)
    traced = tuple(
        Level(i, first.starts[i], bound.end, feature, macs[i])
        for i, (bound, feature) in enumerate(zip(bounds, features, strict=True))
    )
    sites, dead = classify_sites(model, first, both, parameters)
    if not sites:
        raise UserError(
            f"{type(backbone).__name__} has no layer that can carry an adapter between {bounds[0]} and {bounds[-1]}"
        )
    return BackboneSpec(
        name=_name(backbone),
        image_size=size,
        levels=traced,
        sites=sites,
        dead=dead,
        side_inputs=_side_inputs(first, both),
        parameters=parameters,
        stem_macs=first.stem_macs + once,
        feature_indices=indices,
    )


def record(
    model: nn.Module,
    bounds: tuple[LevelBounds, ...],
    images: Tensor,
    example_inputs: Mapping[str, Tensor] | None,
    counts: bool = True,
) -> Recording:
    """One pass with notes on every call.

    Args:
        model: a copy of the backbone; it gets hooks for the time of the call.
        example_inputs: further keyword inputs for one image, repeated for all.
        counts: whether to count multiply-accumulates, which takes time.

    Raises:
        UserError: the backbone cannot take these images or inputs.
    """
    try:
        return Recorder(model, bounds, counts).run(images, repeat_inputs(example_inputs, len(images)))
    except UserError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        size = "x".join(map(str, images.shape[2:]))
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{type(model).__name__} cannot take images of {size}: {reason} "
            "(choose another image_size, or create the backbone with img_size=)"
        ) from error


def repeat_inputs(example_inputs: Mapping[str, Tensor] | None, times: int) -> dict[str, Tensor]:
    """The inputs of one image, for a batch of `times` equal ones.

    Raises:
        UserError: no tensors by name, or one that is not for one image.
    """
    if not isinstance(example_inputs or {}, Mapping):
        raise UserError(f"example_inputs={example_inputs!r}: pass a dict of tensors by the names of their arguments")
    inputs = {}
    for name, value in (example_inputs or {}).items():
        if not isinstance(value, Tensor):
            raise UserError(f"example input {name!r} is of type {type(value).__name__}: pass a torch tensor")
        if value.shape[:1] != (1,):
            raise UserError(f"example input {name!r} has shape {tuple(value.shape)}: give it for one image (batch 1)")
        inputs[name] = torch.cat([value] * times)
    return inputs


def _check_batch(backbone: nn.Module, first: Recording, second: Recording, both: Recording, tolerance: float) -> None:
    """Refuse a backbone in which one image of the batch changes what another gives, or moves."""
    for end, tap in both.taps.items():
        if (len(first.taps[end]), len(tap)) != (1, 2):
            raise UserError(f"{_name(backbone)}: the output of {end!r} does not have the batch as its first dimension")
    recordings = (first, second, both)
    inputs = [
        (f"before {name!r}", [r.calls[name].fingerprint for r in recordings])
        for name in both.order
        if all(name in r.calls for r in recordings)
    ]
    outputs = [(f"in {end!r}", [fingerprint(r.taps[end]) for r in recordings]) for end in both.taps]
    for place, (rows_a, rows_b, rows) in inputs + outputs:
        if len(rows) != len(rows_a) + len(rows_b):
            continue
        expected = torch.cat([rows_a, rows_b])
        scale = expected.abs().max().clamp_min(1e-12)
        if not torch.allclose(rows / scale, expected / scale, rtol=0, atol=tolerance):
            raise UserError(
                f"{_name(backbone)} mixes the images of a batch {place}: branches are folded into the batch, "
                "so every image must be computed on its own"
            )


def _check_bounds(backbone: nn.Module, bounds: tuple[LevelBounds, ...], first: Recording, both: Recording) -> None:
    """Refuse levels whose first or last module runs more than once, or whose first module does not see the batch."""
    for index, bound in enumerate(bounds):
        start = first.starts[index]
        call, pair = first.calls.get(start), both.calls.get(start)
        if both.starts[index] != start or call is None or pair is None or pair.rows != 2 * call.rows:
            raise UserError(
                f"level {index} of {_name(backbone)} starts at {start!r}, which does not see the batch first: name "
                "another module, levels=['first:last', ...]"
            )
        for name in (start, bound.end):
            if name in first.calls and first.calls[name].count > 1:
                raise UserError(
                    f"level {index} of {_name(backbone)}: {name!r} is called {first.calls[name].count} times; a level "
                    "must begin and end at modules that are called once"
                )


def _features(
    model: nn.Module,
    bounds: tuple[LevelBounds, ...],
    recording: Recording,
    image: Tensor,
    size: tuple[int, int],
) -> tuple[list[Feature], tuple[int, ...] | None]:
    info = {e["module"]: (i, e["num_chs"]) for i, e in enumerate(getattr(model, "feature_info", None) or [])}
    ends = [bound.end for bound in bounds]
    features = [feature_of(recording.taps[end], model, size, info.get(end, (0, None))[1]) for end in ends]
    if (
        "NLC" not in {f.layout for f in features}
        or not hasattr(model, "forward_intermediates")
        or not set(ends) <= set(info)
    ):
        return features, None
    indices = tuple(info[end][0] for end in ends)
    with torch.no_grad():
        forward: Any = model.forward_intermediates
        maps = forward(image, indices=list(indices), intermediates_only=True, norm=False)
    ours = [to_map(recording.taps[end], feature, size) for end, feature in zip(ends, features, strict=True)]
    if all(
        a.shape == b.shape and torch.allclose(a.detach(), b, rtol=1e-3, atol=1e-4)
        for a, b in zip(ours, maps, strict=True)
    ):
        return features, None
    shapes = [(int(c), int(h), int(w)) for _, c, h, w in (m.shape for m in maps)]
    return [Feature(c, h, w, "intermediates") for c, h, w in shapes], indices


def _side_inputs(first: Recording, both: Recording) -> tuple[SideInput, ...]:
    """Arguments beside the first tensor that carry the batch: their first dimension doubled with it."""
    found = []
    for name, call in both.calls.items():
        alone = first.calls[name].side_rows
        rows = {key: alone[key] for key, count in call.side_rows.items() if count == 2 * alone.get(key, 0)}
        if rows and call.level is not None:
            found.append(SideInput(name, call.level, rows))
    return tuple(found)


def _reached_parameters(model: nn.Module, taps: list[Tensor]) -> tuple[str, ...]:
    """The parameters that the taps depend on, from the autograd graph; nothing is differentiated."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    stack: list[Any] = [tap.grad_fn for tap in taps]
    seen, reached = set(), set()
    while stack:
        function = stack.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            reached.add(names.get(id(function.variable)))
        stack.extend(source for source, _ in function.next_functions)
    return tuple(name for name in names.values() if name in reached)


def _image_size(backbone: nn.Module, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    if image_size is None:
        embed = getattr(backbone, "patch_embed", None)
        config = getattr(backbone, "pretrained_cfg", None) or {}
        image_size = getattr(embed, "img_size", None) or tuple(config.get("input_size", (3, 224, 224)))[1:]
    sides = image_size if isinstance(image_size, Sequence) and not isinstance(image_size, str) else [image_size] * 2
    try:
        height, width = (whole("image_size", side) for side in sides)
    except ValueError as error:
        raise UserError(
            f"image_size={image_size!r} is not a size: give one whole number, or (height, width)"
        ) from error
    if height < 1 or width < 1:
        raise UserError(f"image_size {height}x{width} is not a size")
    return height, width


def _name(backbone: nn.Module) -> str:
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(backbone).__name__)
