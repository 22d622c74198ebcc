"""What an adapter reads after an activation function or a normalisation is computed again in the backward pass.

A frozen layer needs its input for no gradient, an adapter on it does: of an MLP's second layer that is the largest
tensor of a block. The function before it keeps its own input anyway, and costs little beside a layer.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from branchtune.backbone.clone import OwnHook
from branchtune.scoped import Scoped

# Neither random nor with a state, and each keeps its input for its own gradient.
_CHEAP = (nn.GELU, nn.SiLU, nn.Mish, nn.LayerNorm)


@dataclass(frozen=True)
class Source:
    """How a tensor was made by a cheap module.

    Attributes:
        output: the tensor, not kept alive.
        version: of it, as it was made.
        module: which made it.
        inputs: of which it was made.
    """

    output: weakref.ref[Tensor]
    version: int
    module: nn.Module
    inputs: Tensor

    def made(self, tensor: Tensor) -> bool:
        """Whether the tensor is the output, and nothing has changed it in place."""
        return self.output() is tensor and tensor._version == self.version

    @contextmanager
    def in_place_of_output(self) -> Iterator[None]:
        """Inside, autograd keeps this in place of the tensor and of views of it."""
        tensor = self.output()
        assert tensor is not None
        address = tensor.untyped_storage().data_ptr()

        def pack(saved: Tensor) -> Any:
            # on the meta device every address is 0
            if not address or saved.untyped_storage().data_ptr() != address or saved.dtype != self.inputs.dtype:
                return saved
            return saved.size(), saved.stride(), saved.storage_offset()

        def unpack(packed: Any) -> Tensor:
            return packed if isinstance(packed, Tensor) else self._again().as_strided(*packed)

        with saved_tensors_hooks(pack, unpack):
            yield

    @torch.no_grad()
    def _again(self) -> Tensor:
        return type(self.module).forward(self.module, self.inputs)  # without hooks


# The latest source of the present pass; no list where none is wanted.
_latest: Scoped[list[Source]] = Scoped("branchtune_sources")


@contextmanager
def sources_noted(wanted: bool) -> Iterator[None]:
    """Around a forward pass whose adapters may keep sources in place of their inputs; or must not, inside of one."""
    outer = _latest.get()
    _latest.set([] if wanted else None)
    try:
        yield
    finally:
        _latest.set(outer)


def keeping_source_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Inside, autograd keeps the source of `tensor` in its place, if the latest cheap module returned it."""
    latest = None if torch.compiler.is_compiling() else _latest.get()
    return latest[0].in_place_of_output() if latest and latest[0].made(tensor) else nullcontext()


def note_sources(model: nn.Module) -> None:
    """Let the cheap modules of `model`, a copy of the backbone or of a part of it, note what they make."""
    for module in model.modules():
        if isinstance(module, _CHEAP) and type(module).__module__.startswith(("torch.", "timm.")):
            module.register_forward_hook(_Note())


class _Note(OwnHook):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # A compiler decides by itself what to compute again.
        latest = None if torch.compiler.is_compiling() or not torch.is_grad_enabled() else _latest.get()
        if latest is None:
            return
        latest.clear()
        # Without a gradient for it, the input is not kept. Another dtype: autocast, which no backward pass is under.
        in_place = getattr(module, "inplace", False)
        plain = len(args) == 1 and args[0].requires_grad and args[0].dtype == output.dtype and not in_place
        if plain and self._is_what_the_class_makes(module):
            latest.append(Source(weakref.ref(output), output._version, module, args[0].detach()))

    def _is_what_the_class_makes(self, module: nn.Module) -> bool:
        """Whether nothing of the user's makes the output, or changed it: it would not be there the second time."""
        if "forward" in vars(module) or torch.nn.modules.module._global_forward_hooks:
            return False
        before = itertools.takewhile(lambda hook: hook is not self, module._forward_hooks.values())
        return all(isinstance(hook, OwnHook) for hook in before)
