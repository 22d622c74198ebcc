"""Which layers can have their weights stored in low precision, and what memory is left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from branchtune.errors import UserError, unknown
from branchtune.installed import check_installed
from branchtune.low_memory.precision import Precision
from branchtune.low_memory.widened import keep_bfloat16

_LAYERS: Mapping[Precision, tuple[type[nn.Module], ...]] = {
    "bfloat16": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "int8": (nn.Linear,),
}


def check_precision(precision: Any) -> Precision:
    """Refuse what is no precision, and int8 where torchao cannot be used.

    Raises:
        UserError: names those that exist, or what to install.
    """
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision == "int8":
        check_installed("int8", "int8", "torchao")
        _torchao()
    return precision


def _torchao() -> Any:
    notes = logging.getLogger("torch.utils._pytree")  # of deprecations inside torchao, at its first import
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        import torchao.quantization

        return torchao.quantization
    except Exception as error:  # a build for another torch fails in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"torchao cannot be imported ({reason}): pip install 'branchtune[int8]'") from error
    finally:
        notes.setLevel(level)


def can_be_stored(module: nn.Module, precision: Precision) -> bool:
    """Whether the layer has a weight of its own that becomes smaller."""
    if not isinstance(module, _LAYERS[precision]) or "weight" not in module._parameters:
        return False
    if precision == "int8":
        return not isinstance(module, NonDynamicallyQuantizableLinear)  # attention of torch's own reads its bits
    return module.weight.dtype.itemsize > 2  # type: ignore[operator, return-value]


def store(layers: Iterable[Any], precision: Precision) -> None:
    """Give layers of a copied backbone their weights in this precision; a weight that two layers share stays shared.

    bfloat16 is rounded to nearest. int8 is symmetric with one scale per output channel (torchao's weight-only
    configuration): w = s q with s = max |w| / 127.5 over the channel, q whole.

    Raises:
        UserError: int8 of float64 weights, which torchao does not know.
    """
    stored: dict[Any, Any] = {}
    for layer in layers:
        weight = layer.weight
        if precision == "bfloat16":
            bits = stored.setdefault(weight, weight.detach().bfloat16().view(torch.int16))
            keep_bfloat16(layer, bits)
        elif weight in stored:
            layer.weight = stored[weight]
        else:
            _quantize(layer)
            stored[weight] = layer.weight


def _quantize(layer: Any) -> None:
    if layer.weight.dtype == torch.float64:
        raise UserError(f"int8 weights cannot be made of {layer.weight.dtype}: use model.float() first")
    torchao = _torchao()
    torchao.quantize_(layer, torchao.Int8WeightOnlyConfig(set_inductor_config=False))
    vars(layer).pop("extra_repr", None)  # torchao's own, with which a layer cannot be pickled


def stored_bytes(module: nn.Module) -> int:
    """Memory of parameters and buffers, each tensor once."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(map(_bytes, tensors.values()))


def _bytes(tensor: Tensor) -> int:
    if is_traceable_wrapper_subclass(tensor):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
