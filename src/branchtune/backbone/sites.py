"""Which modules of a traced backbone can carry an adapter, and why the others cannot."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from torch import nn

from branchtune.backbone.recorder import Call, Recording
from branchtune.backbone.spec import Site


def classify_sites(
    model: nn.Module, first: Recording, both: Recording, parameters: Collection[str]
) -> tuple[tuple[Site, ...], dict[str, str]]:
    """Split the layers of the levels into sites and dead layers.

    Args:
        first: the recording of one image.
        both: the recording of two images.
        parameters: names of the parameters that the features depend on.

    Returns:
        The sites in order of execution, and the reason for every layer that cannot be one.
    """
    modules = dict(model.named_modules())
    reached = {name.rpartition(".")[0] for name in parameters}
    sites, dead, outside = [], {}, {}
    for name in both.order:
        call, pair = first.calls.get(name), both.calls[name]
        module = modules[name]
        is_layer = isinstance(module, nn.Linear | nn.Conv2d)
        if call is None or not (is_layer or _is_block(call, module)):
            continue
        if call.level is None:
            if is_layer and call.problem:
                outside[name] = call.problem
            continue
        if is_layer and not reached.intersection({name, f"{name}.parametrizations.weight"}):
            dead[name] = "the features do not depend on it"
            continue
        if pair.rows != 2 * call.rows:
            if is_layer:
                dead[name] = "does not see the batch as its first dimension"
            continue
        if isinstance(module, nn.Linear):
            sites.append(_linear(name, module, call))
        elif isinstance(module, nn.Conv2d):
            reason = _conv_problem(module)
            if reason:
                dead[name] = reason
            else:
                sites.append(_conv(name, module, call))
        else:
            sites.append(_block(name, modules, call))
    return tuple(sites), dead | _never_called(modules, both) | outside


def _is_block(call: Call, module: nn.Module) -> bool:
    """A block returns a tensor and contains a layer; whether an adapter wants it is the adapter's business."""
    return call.last_layer is not None and bool(call.output_shapes) and not isinstance(module, nn.Sequential)


def _positions(call: Call, channel_axis: int) -> int:
    total = 0
    for shape in call.output_shapes:
        size = 1
        for length in shape:
            size *= length
        total += size // shape[channel_axis]
    return total


def _linear(name: str, module: nn.Linear, call: Call) -> Site:
    assert call.level is not None
    return Site(name, call.level, "linear", module.in_features, module.out_features, _positions(call, -1))


def _conv(name: str, module: nn.Conv2d, call: Call) -> Site:
    assert call.level is not None
    pair = lambda value: cast(tuple[int, int], tuple(int(v) for v in value))  # noqa: E731
    return Site(
        name,
        call.level,
        "conv2d",
        module.in_channels,
        module.out_channels,
        _positions(call, 1),
        channel_axis=1,
        kernel_size=pair(module.kernel_size),
        stride=pair(module.stride),
        padding=pair(cast(Any, module.padding)),
        dilation=pair(module.dilation),
        groups=module.groups,
    )


def _conv_problem(module: nn.Conv2d) -> str | None:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return f"padding {module.padding!r} ({module.padding_mode}) is not supported"
    if type(module).forward is not nn.Conv2d.forward and module.kernel_size != (1, 1):
        return f"{type(module).__name__} computes its own padding"
    return None


def _block(name: str, modules: dict[str, nn.Module], call: Call) -> Site:
    assert call.level is not None
    assert call.last_layer is not None
    axis = _channel_axis(call.output_shapes[0], modules[call.last_layer])
    channels = call.output_shapes[0][axis]
    return Site(name, call.level, "block", channels, channels, _positions(call, axis), channel_axis=axis)


def _channel_axis(shape: tuple[int, ...], last_layer: nn.Module) -> int:
    """Where the channels of a block's output are: where its last layer's are, unless the block moved them after it."""
    if len(shape) != 4:
        return -1
    is_conv = isinstance(last_layer, nn.Conv2d)
    channels = cast(Any, last_layer).out_channels if is_conv else cast(Any, last_layer).out_features
    fitting = [axis for axis in (1, -1) if shape[axis] == channels]
    return fitting[0] if len(fitting) == 1 else (1 if is_conv else -1)


def _never_called(modules: dict[str, nn.Module], both: Recording) -> dict[str, str]:
    """Layers inside a module that ran in a level, whose own module did not: the code reads their weight directly."""
    return {
        name: "its module is never called: the code reads its weight directly"
        for name, module in modules.items()
        if isinstance(module, nn.Linear | nn.Conv2d) and name not in both.calls and _runs_in_a_level(name, both)
    }


def _runs_in_a_level(name: str, both: Recording) -> bool:
    while name := name.rpartition(".")[0]:
        if name in both.calls:
            return both.calls[name].level is not None
    return False
