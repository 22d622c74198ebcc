"""Model -> folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchtune.atomic import replace_directory
from branchtune.errors import UserError, check_instance
from branchtune.model import MultiTaskModel
from branchtune.shipping.card import model_card
from branchtune.shipping.config import ModelConfig
from branchtune.shipping.files import ADAPTERS, CARD, CONFIG, DECODERS, FILES
from branchtune.shipping.tensors import adapter_tensors, decoder_tensors, to_bytes
from branchtune.snapshot import ModelSnapshot


def save_pretrained(
    model: MultiTaskModel,
    save_directory: str | os.PathLike[str],
    *,
    card: str | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    name: str | None = None,
) -> None:
    """Write what `load_pretrained` reads: the tree, the tasks, and every weight that the frozen backbone lacks.

    The folder holds `adapter_config.json`, `adapter_model.safetensors` (adapters and extras; the backbone's weights
    only after full fine-tuning), `decoders.safetensors` and `README.md`. It appears whole or not at all.

    Args:
        model: any model, also one whose backbone cannot be created again: then the card says that it must be passed.
        save_directory: a new folder, or one of a model saved before, which is replaced; neither a mount point nor the
            current folder, but one inside it.
        card: the text of README.md; default: one made from the model.
        metrics: by task, such as `evaluate` returns, for the card.
        name: by which the card loads the model; default: that of the folder.

    Raises:
        UserError: a merged or low-memory model; the folder holds something else, or cannot be written or replaced; a
            task, adapter or decoder of the user's own whose arguments are no attributes of the same names, or that JSON
            cannot hold; a card that is no text, or metrics that are no numbers.
    """
    check_instance("card", card, str, "'# My model'")
    if isinstance(model, ModelSnapshot):
        raise UserError(
            f"a {model.kind} model is not saved: save the model that it was made from, and after loading call "
            f"MultiTaskModel.from_pretrained(path).{model.instead_of_saving}"
        )
    path = Path(save_directory)
    _check_folder(path)
    weights = {ADAPTERS: to_bytes(adapter_tensors(model)), DECODERS: to_bytes(decoder_tensors(model))}
    config = ModelConfig.of(model, weights)
    text = card if card is not None else model_card(model, config, name or path.resolve().name, metrics)
    with replace_directory(path) as folder:
        for file, data in weights.items():
            (folder / file).write_bytes(data)
        (folder / CONFIG).write_text(_one_key_per_line(config.to_json()), encoding="utf-8")
        (folder / CARD).write_text(text, encoding="utf-8")


def _one_key_per_line(data: dict[str, Any]) -> str:
    lines = ",\n".join(f'  "{key}": {json.dumps(value, allow_nan=False)}' for key, value in data.items())
    return f"{{\n{lines}\n}}\n"


def _check_folder(path: Path) -> None:
    """Only a folder that holds nothing but a saved model is replaced."""
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in FILES) if path.is_dir() else []
    if others:
        raise UserError(f"{path} holds other files ({', '.join(others[:3])}): save the model to a folder of its own")
