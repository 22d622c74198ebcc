"""Several processes with one device each, as `torchrun` starts them, and how Lightning trains in them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are; (0, 1) unless `torchrun` has started them."""
    if not torch.distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def local_rank_and_count() -> tuple[int, int]:
    """Likewise among the processes of this machine."""
    if not torch.distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


def ddp_options() -> dict[str, Any]:
    """Arguments of DistributedDataParallel with which tasks may lack labels and processes validate uneven shares.

    A task without a label in the joint batch leaves parameters unused. Buffers are not exchanged in the forward pass,
    for which a process with fewer validation batches would be waited for; `MultiTaskModule` averages them.
    """
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch < 2.15
    return {"find_unused_parameters": True, buffers: False}


def trainer_arguments(device: torch.device, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What Lightning's Trainer needs to know where there are several processes; nothing otherwise.

    Args:
        device: of this process.
        trainer: the user's keys, whose list of devices is that of the processes where it is as long.
    """
    _, processes = rank_and_count()
    if processes == 1:
        return {}
    _, here = local_rank_and_count()
    devices, wanted = here, trainer.get("devices")
    if device.type == "cuda" and isinstance(wanted, list | tuple) and len(wanted) == here:
        devices = list(wanted)  # type: ignore[assignment]
    return {"strategy": DDPStrategy(**ddp_options()), "devices": devices, "num_nodes": processes // here}
