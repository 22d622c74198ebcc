"""The weight of a layer, stored in low precision and used in the precision of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from branchtune.errors import UserError, unknown
from branchtune.images import is_autocast

Precision = Literal["bfloat16", "int8"]

_LAYERS: Mapping[Precision, tuple[type[nn.Module], ...]] = {
    "bfloat16": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "int8": (nn.Linear,),
}


def check_precision(precision: Any) -> Precision:
    """Refuse what is no precision, and int8 where torchao is missing.

    Raises:
        UserError: names those that exist, or what to install.
    """
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision == "int8":
        try:
            import torchao.quantization  # noqa: F401
        except ImportError as error:
            raise UserError("int8 weights need torchao: pip install 'branchtune[int8]'") from error
    return precision


def can_be_stored(module: nn.Module, precision: Precision) -> bool:
    """Whether the layer is of a kind whose weight has this form, and has a weight that it does not compute."""
    return isinstance(module, _LAYERS[precision]) and "weight" in module._parameters


def store(layer: Any, precision: Precision) -> None:
    """Give a layer of a copied backbone its weight in this precision; the tensor that it had is left as it was.

    bfloat16 is rounded to nearest. int8 is symmetric with one scale per output channel (torchao's weight-only
    configuration): w = s q with s = max |w| / 127.5 over the channel, q whole.

    Raises:
        UserError: int8 of float64 weights, which torchao does not know.
    """
    if precision == "bfloat16":
        wide = layer.weight
        layer.weight = nn.Parameter(wide.detach().to(torch.bfloat16), requires_grad=False)
        parametrize.register_parametrization(layer, "weight", _Widened(wide.dtype), unsafe=True)
        return
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    if layer.weight.dtype == torch.float64:
        raise UserError(f"int8 weights cannot be made of {layer.weight.dtype}: use model.float() first")
    quantize_(layer, Int8WeightOnlyConfig(set_inductor_config=False))


class _Widened(nn.Module):
    """Stored in bfloat16; under autocast, which would round it again, it stays so."""

    def __init__(self, wide: torch.dtype) -> None:
        super().__init__()
        self.wide = wide

    def forward(self, stored: Tensor) -> Tensor:
        return stored if is_autocast(stored.device) else stored.to(self.wide)


def stored_bytes(module: nn.Module) -> int:
    """Memory of parameters and buffers, each tensor once."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(map(_bytes, tensors.values()))


def _bytes(tensor: Tensor) -> int:
    if is_traceable_wrapper_subclass(tensor):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
