"""The device of a process, from the trainer's keys: decoders, affinity and training all use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from branchtune.errors import UserError, unknown
from branchtune.training.processes import local_rank_and_count

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def choose_device(trainer: Mapping[str, Any]) -> torch.device:
    """What `accelerator` (default `auto`: a GPU where there is one) and `devices` (default 1) name.

    Of several devices, that of this process among those that `torchrun` has started on this machine.

    Raises:
        UserError: an accelerator that this machine lacks, or more devices than processes.
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


def device_numbers(trainer: Mapping[str, Any]) -> list[int]:
    """The numbers of the devices that a run uses on this machine: `trainer.devices` is a count, a list, or -1 for all.

    Raises:
        UserError: it is something else.
    """
    devices = trainer.get("devices", "auto")
    if devices in ("auto", None, "1"):
        return [0]
    if isinstance(devices, list | tuple):
        numbers = list(devices)
    elif devices == -1:
        numbers = list(range(max(1, torch.cuda.device_count())))
    else:
        numbers = list(range(devices)) if isinstance(devices, int) and not isinstance(devices, bool) else []
    if not numbers or not all(isinstance(n, int) and n >= 0 for n in numbers) or len(set(numbers)) < len(numbers):
        raise UserError(f"trainer.devices={devices!r}: give how many, a list of their numbers, or -1 for all")
    return numbers


def _index(trainer: Mapping[str, Any]) -> int:
    numbers, (rank, count) = device_numbers(trainer), local_rank_and_count()
    if count > 1:
        if len(numbers) not in (1, count):
            raise UserError(
                f"trainer.devices={trainer.get('devices')!r}, but torchrun has started {count} processes here: give as "
                "many, or leave the key out"
            )
        return numbers[rank] if len(numbers) == count else rank
    if len(numbers) > 1 or trainer.get("num_nodes", 1) != 1:
        raise UserError(
            f"trainer.devices={trainer.get('devices')!r}, num_nodes={trainer.get('num_nodes', 1)!r}: one process uses "
            "one device; `branchtune fit` starts a process for each device, and torchrun on several nodes, this "
            "command does neither"
        )
    return numbers[0]
