"""The processes of one run: the first prepares what all need, all train, the first finishes alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from branchtune.training.processes import rank_and_count

# Fitting decoders and measuring affinity on a large set, while the other processes wait.
PATIENCE = timedelta(days=1)
# Another process has ended with an error, which it tells itself: that is to be the first failure that is noticed.
LOST_ANOTHER, SECONDS_AFTER_ANOTHER = 75, 5.0


class Team:
    """The processes that `torchrun` has started, or this one alone."""

    def __init__(self) -> None:
        self._together = rank_and_count()[1] > 1

    def wait(self) -> None:
        """Until every process is here."""
        if self._together:
            torch.distributed.barrier()

    def leave(self) -> None:
        """From here on the process is alone: metrics are its own, no other is waited for."""
        if self._together and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        self._together = False


@contextmanager
def together(device: torch.device) -> Iterator[Team]:
    """Connect the processes of the run for the block.

    Metrics are added up on the CPU whatever the device, hence two backends on a GPU.
    """
    team = Team()
    if rank_and_count()[1] > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield team
    except RuntimeError as error:
        if "by peer" not in str(error):  # gloo's "connection closed by peer", "connection reset by peer"
            raise
        time.sleep(SECONDS_AFTER_ANOTHER)
        raise SystemExit(LOST_ANOTHER) from None
    finally:
        team.leave()
