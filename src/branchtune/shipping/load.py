"""Folder -> model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.shipping.config import ModelConfig
from branchtune.shipping.download import Download, local_folder
from branchtune.shipping.files import ADAPTERS, CONFIG, DECODERS, check_hash, read_config, read_tensors
from branchtune.shipping.tensors import adapter_tensors, decoder_tensors, fill, without_classifier


@torch.inference_mode(False)  # in it, nothing could be made that trains
def load_pretrained(
    path: str | os.PathLike[str],
    *,
    backbone: nn.Module | None = None,
    backbone_checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    checkpoint_levels: bool | Sequence[int] = False,
) -> MultiTaskModel:
    """Load what `save_pretrained` wrote, in eval mode. Nothing is unpickled; a backbone of other weights is refused.

    Args:
        path: the folder, or "user/name" of a repository of the Hugging Face Hub.
        backbone: the module that the model was trained on; default: it is created again as it was.
        backbone_checkpoint: the local file that its weights came from, where they did.
        device: where to put the model; default: the backbone's.
        revision: branch, tag or commit of a repository of the Hub.
        token: of the Hub, for a private repository; default: the one that `hf auth login` stored.
        cache_dir: where its files are kept; default: the Hub's cache. As the next two, this is for the model's files
            alone; the backbone's weights come as `create_backbone` gets them.
        local_files_only: take a repository that was downloaded before, without asking the network.
        force_download: download a repository again.
        checkpoint_levels: of `MultiTaskModel`, where the model is to be trained further; it is not saved with it.

    Raises:
        UserError: a file is missing, damaged, of a newer format or of another model; the backbone cannot be created
            again or checkpointed, or is not the one that the model was trained on; a class of the user's own cannot be
            imported.
    """
    folder = local_folder(path, Download(revision, token, cache_dir, local_files_only, force_download))
    config = read_model_config(folder)
    adapters, decoders = read_tensors(folder / ADAPTERS), read_tensors(folder / DECODERS)
    if backbone is not None and backbone_checkpoint is not None:
        raise UserError("backbone= and backbone_checkpoint= exclude each other: pass one of them")
    with torch.random.fork_rng(devices=[]):
        if backbone is None:
            backbone = _create_backbone(config, folder, backbone_checkpoint)
        _check_backbone(config, folder, backbone)
        model = config.build(backbone, checkpoint_levels)
    fill(adapter_tensors(model), without_classifier(adapters, model), folder / ADAPTERS)
    fill(decoder_tensors(model), decoders, folder / DECODERS)
    for name, expected in config.hashes.items():
        check_hash(folder / name, expected)
    return _to_device(model, device or next(backbone.parameters()).device).eval()


def read_model_config(folder: Path) -> ModelConfig:
    """What adapter_config.json of the folder says.

    Raises:
        UserError: it is missing, damaged or of a newer format; with the file's name.
    """
    data = read_config(folder)
    try:
        return ModelConfig.from_json(data)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error


def _create_backbone(config: ModelConfig, folder: Path, checkpoint: str | os.PathLike[str] | None) -> nn.Module:
    source = config.source
    if source is None:
        raise UserError(
            f"{folder}: its backbone ({config.spec.name}) cannot be created again by name: pass it as backbone="
        )
    if config.train_backbone:
        return source.create(pretrained=False).to(config.torch_dtype())
    if checkpoint is None and not source.has_weights:
        raise UserError(
            f"{folder}: the weights of its backbone ({source}) cannot be had again, it was created with "
            "pretrained=False: pass the module as backbone="
        )
    if checkpoint is None and source.checkpoint_file is not None:
        raise UserError(
            f"{folder}: its backbone's weights came from the file {source.checkpoint_file} (SHA-256 "
            f"{source.checkpoint_sha256}): pass its path as backbone_checkpoint="
        )
    try:
        return source.create(checkpoint=None if checkpoint is None else Path(checkpoint)).to(config.torch_dtype())
    except UserError as error:
        raise UserError(f"{folder}: its backbone cannot be created again: {error}; or pass backbone=") from error


def _check_backbone(config: ModelConfig, folder: Path, backbone: nn.Module) -> None:
    difference = config.difference(backbone)
    if difference is None:
        return
    weights = f", weights {config.fingerprint[:12]}" if config.fingerprint else ""
    raise UserError(
        f"{folder} was trained on {config.source or config.spec.name}{weights}, and this backbone is another one: "
        f"{difference}; pass that one as backbone=, or the file of its weights as backbone_checkpoint="
    )


def _to_device(model: MultiTaskModel, device: str | torch.device) -> MultiTaskModel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]})") from error
