"""The files of a saved model, and how they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from branchtune.errors import UserError
from branchtune.weight_loading import file_sha256

CONFIG = "adapter_config.json"
ADAPTERS = "adapter_model.safetensors"
DECODERS = "decoders.safetensors"
CARD = "README.md"
FILES = (CONFIG, ADAPTERS, DECODERS, CARD)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json.

    Raises:
        UserError: the file is missing, cannot be read, or holds no JSON object.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        inside = folder / "model" / CONFIG
        hint = f"pass {inside.parent}" if inside.is_file() else "pass the folder that save_pretrained wrote"
        raise UserError(f"{folder} holds no {CONFIG}: {hint}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged (not JSON: {error}): save the model again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object): save the model again")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing, cannot be read, or is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder that save_pretrained wrote")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): copy or save it again") from error


def check_hash(path: Path, expected: str) -> None:
    """Raise a `UserError` unless the file's bytes are those that were saved."""
    if file_sha256(path) != expected:
        raise UserError(f"{path} is not the file that was saved with {CONFIG}: damaged or replaced, copy it again")
