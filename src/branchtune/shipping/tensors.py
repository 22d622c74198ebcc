"""The tensors that a saved model consists of, by the names they have in its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from branchtune.backbone.fingerprint import classifiers
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel


def adapter_tensors(model: MultiTaskModel) -> dict[str, Tensor]:
    """The model's own tensors of adapters and extras, and of the backbone where it was fine-tuned.

    A parameter that no feature depends on belongs to the user's backbone even then, and is left out; so are a
    classifier's buffers, which a backbone created again, without a classifier, would lack.
    """
    branched = model.backbone
    adapters = branched.adapters.state_dict(keep_vars=True)
    frozen = branched.frozen.state_dict(keep_vars=True)
    if branched.train_backbone:
        parameters = {name for name, _ in branched.frozen.named_parameters(remove_duplicate=False)}
        heads = classifiers(branched.frozen)
        buffers = {name for name in frozen if name not in parameters and name.partition(".")[0] not in heads}
        own = buffers | (frozen.keys() & set(model.spec.parameters))
    else:
        own = branched.extra_names
    prefix = "backbone" if branched.train_backbone else "extras"
    return {f"adapters.{name}": tensor for name, tensor in adapters.items()} | {
        f"{prefix}.{name}": frozen[name] for name in sorted(own)
    }


def without_classifier(stored: Mapping[str, Tensor], model: MultiTaskModel) -> dict[str, Tensor]:
    """What a file of adapters holds but for a classifier's buffers, which older versions wrote."""
    heads = tuple(f"backbone.{name}." for name in classifiers(model.backbone.frozen))
    own = adapter_tensors(model)
    return {name: tensor for name, tensor in stored.items() if name in own or not name.startswith(heads)}


def decoder_tensors(model: MultiTaskModel) -> dict[str, Tensor]:
    """The model's own tensors of the decoders, buffers of normalisation layers included."""
    return dict(model.decoders.state_dict(keep_vars=True))


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file; tensors that share memory are written once for each name."""
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return save(copies, metadata={"format": "pt"})


def fill(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors of the file at `path` into the model's own, which take over their dtype.

    Raises:
        UserError: a key is missing or unexpected, or a shape differs; nothing was copied.
    """
    missing, unexpected = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or unexpected:
        lacks = f"{len(missing)} weights are missing{_first(missing)}"
        raise UserError(
            f"{path} does not belong to this tree and adapter: {lacks}, {len(unexpected)} are unexpected"
            f"{_first(unexpected)}; take the file saved with adapter_config.json"
        )
    for name, tensor in stored.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the model needs {tuple(own[name].shape)}; take the "
                "file saved with adapter_config.json"
            )
    for name, tensor in stored.items():
        own[name].data = own[name].data.to(tensor.dtype)
        own[name].data.copy_(tensor)


def _first(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
