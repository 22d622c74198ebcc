"""The device of a process, from the trainer's keys: decoders, affinity and training all use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    kind, index = _kind(trainer), _index(trainer)
    _check_there(kind, [index], trainer)
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse devices that this machine lacks, before a process is started for each.

    Raises:
        UserError: as `choose_device`, for any of them.
    """
    _check_there(_kind(trainer), device_numbers(trainer), trainer)


def _kind(trainer: Mapping[str, Any]) -> str:
    wanted = str(trainer.get("accelerator") or "auto")
    if wanted not in ACCELERATORS:
        raise unknown("trainer.accelerator", wanted, ACCELERATORS)
    if wanted == "cpu":
        return "cpu"
    if wanted != "mps" and torch.cuda.is_available():
        return "cuda"
    if wanted != "cuda" and torch.backends.mps.is_available():
        return "mps"
    if wanted != "auto":
        raise UserError(f"trainer.accelerator={wanted}: no such device is available here, choose auto or cpu")
    return "cpu"


def _check_there(kind: str, numbers: Sequence[int], trainer: Mapping[str, Any]) -> None:
    if kind == "cpu":
        return
    count = torch.cuda.device_count() if kind == "cuda" else 1
    lacking = [number for number in numbers if number >= count]
    if lacking:
        raise UserError(
            f"trainer.devices={trainer.get('devices')!r} needs GPU {lacking[0]}, and this machine has {count} GPUs, "
            "numbered from 0: name those that it has, or -1 for all"
        )


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
        gpus = 0 if trainer.get("accelerator") in ("cpu", "mps") else torch.cuda.device_count()
        numbers = list(range(max(1, gpus)))
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
