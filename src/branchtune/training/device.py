"""The one device of a run, from the trainer's keys: decoders, affinity and training all use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from branchtune.errors import UserError, unknown

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def choose_device(trainer: Mapping[str, Any]) -> torch.device:
    """What `accelerator` (default `auto`: a GPU where there is one) and `devices` (default 1) name.

    Raises:
        UserError: an accelerator that this machine lacks, or more than one device: batches are not split over them.
    """
    wanted = str(trainer.get("accelerator") or "auto")
    if wanted not in ACCELERATORS:
        raise unknown("trainer.accelerator", wanted, ACCELERATORS)
    index = _index(trainer)
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted != "mps" and torch.cuda.is_available():
        if index >= torch.cuda.device_count():
            raise UserError(f"trainer.devices=[{index}]: this machine has {torch.cuda.device_count()} GPUs, from 0")
        return torch.device("cuda", index)
    if wanted != "cuda" and torch.backends.mps.is_available():
        return torch.device("mps")
    if wanted != "auto":
        raise UserError(f"trainer.accelerator={wanted}: no such device is available here, choose auto or cpu")
    return torch.device("cpu")


def _index(trainer: Mapping[str, Any]) -> int:
    devices = trainer.get("devices", "auto")
    if isinstance(devices, (list, tuple)) and len(devices) == 1 and isinstance(devices[0], int):
        index = devices[0]
    elif devices in ("auto", None, 1, "1"):
        index = 0
    else:
        index = -1
    if index < 0 or trainer.get("num_nodes", 1) != 1:
        raise UserError(
            f"trainer.devices={devices!r}, num_nodes={trainer.get('num_nodes', 1)!r}: a run uses one device; set "
            "devices to 1, or to [i] for the GPU number i"
        )
    return index
