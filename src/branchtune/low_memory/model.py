"""`LowMemoryModel`, what `MultiTaskModel.low_memory` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from branchtune.backbone.check import image_channels, placement
from branchtune.backbone.trace import repeat_inputs
from branchtune.errors import UserError
from branchtune.low_memory.precision import Precision
from branchtune.low_memory.weights import can_be_stored, check_precision, store, stored_bytes
from branchtune.model import MultiTaskModel
from branchtune.snapshot import BackboneSnapshot, ModelSnapshot


class LowMemoryBackbone(BackboneSnapshot):
    """A branched backbone whose weights are stored in low precision."""

    kind, verb = "low-memory", "store"


class LowMemoryModel(ModelSnapshot):
    """A model whose backbone's weights are stored in low precision; adapters, extras and decoders are as they were.

    Attributes:
        precision: of the stored weights.
        num_stored: how many layers have theirs stored so.
        bytes_before: memory of the backbone, without adapters, as it was.
        bytes_after: the same now.
    """

    def __init__(
        self, model: MultiTaskModel, backbone: LowMemoryBackbone, precision: Precision, num_stored: int
    ) -> None:
        super().__init__(model, backbone)
        self.precision, self.num_stored = precision, num_stored
        self.instead_of_saving = f"low_memory({precision!r})"
        self.bytes_before, self.bytes_after = (stored_bytes(m.backbone.frozen) for m in (model, self))

    def describe(self) -> str:
        """One line: the memory of the backbone before and after."""
        before, after = (f"{count / 1e6:.1f} MB" for count in (self.bytes_before, self.bytes_after))
        return f"backbone: {before} -> {after}, {self.num_stored} weights in {self.precision}"

    def merge(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "this model is low-memory: adapters merged into its weights would be rounded with them; use merge() of "
            "the model that it was made from"
        )


@torch.inference_mode(False)
@torch.no_grad()
def low_memory(
    model: MultiTaskModel, precision: Precision = "bfloat16", *, example_inputs: Mapping[str, Tensor] | None = None
) -> LowMemoryModel:
    """A copy of a model for inference whose backbone takes less memory; the model is left as it was.

    Only storage changes: a layer's weight is widened when the layer runs, so activations, adapters, extras and decoders
    keep their precision (and the speed gains little; for that, call the model under `torch.autocast`). What the
    metrics lose is printed by `branchtune evaluate RUN --low_memory int8`. All of a backbone's linear layers (and
    convolutions) but the extras are stored so, also where they were fine-tuned; the joint projection of
    `nn.MultiheadAttention` is no such layer.

    It excludes `merge()`: adapters folded into weights would be rounded with them, often to nothing, as their changes
    are small beside the weights. The model that is returned can be copied and pickled; it is not saved.

    Args:
        model: trained; the memory is saved once it, and the backbone that it was made from, are deleted.
        precision: "bfloat16", the weights of linear layers and convolutions; "int8", of linear layers, symmetric with
            one scale per output channel, by torchao (`pip install 'branchtune[int8]'`).
        example_inputs: further keyword inputs of the backbone for one image, where it needs any.

    Raises:
        UserError: an unknown precision; torchao is missing, or the model is in float64 (int8); no layer of the
            backbone can be stored so; the backbone's own code does not run with such weights, or needs more inputs.
    """
    precision = check_precision(precision)
    source = model.backbone
    backbone = LowMemoryBackbone(source, model.extras)
    layers = [
        module
        for name, module in backbone.frozen.named_modules()
        if f"{name}.weight" not in source.extra_names and can_be_stored(module, precision)
    ]
    if not layers:
        raise UserError(f"{source.spec.name} has no layer whose weight is smaller in {precision}")
    like = placement(source.frozen)
    _run(backbone, like, example_inputs, "does not run on images alone", "; pass what it needs as example_inputs=")
    store(layers, precision)
    backbone.rest()
    _run(backbone, like, example_inputs, f"does not run with weights in {precision}", "")
    return LowMemoryModel(model, backbone, precision, len(layers))


def _run(
    backbone: LowMemoryBackbone, like: Tensor, example_inputs: Mapping[str, Tensor] | None, what: str, way: str
) -> None:
    """Code of a backbone's own may do more with a weight than multiply by it."""
    images = torch.zeros(2, image_channels(backbone.frozen), *backbone.spec.image_size).to(like)
    try:
        backbone(images, inputs=repeat_inputs(example_inputs, 2))
    except (RuntimeError, TypeError, NotImplementedError, AttributeError, UserError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{backbone.spec.name} {what}: {reason}{way}") from error
