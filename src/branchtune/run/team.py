"""The processes of one run: the first prepares what all need, all train, the first finishes alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from branchtune.training.processes import rank_and_count

# All connect to the launcher's store at their start; the first one has the data to look through before.
MEETING = timedelta(days=1)
# The longest that processes in training wait for one that writes a checkpoint or looks through its images: above
# this, one of them hangs. What precedes the training waits for the first process without a limit.
EXCHANGE = timedelta(minutes=30)
PREPARED, SECONDS_BETWEEN_LOOKS = "branchtune/prepared", 0.2
# Another process has ended with an error, which it tells itself: that is to be the first failure that is noticed.
LOST_ANOTHER, SECONDS_AFTER_ANOTHER = 75, 5.0


@contextmanager
def together(device: torch.device) -> Iterator[Callable[[], None]]:
    """Let the processes that `torchrun` has started meet for the block; after it each is alone, its metrics its own.

    Until they connect, the first one may prepare for as long as it takes: the others look for its word in the
    launcher's store, and the launcher ends them if it fails. Metrics are added up on the CPU whatever the device, hence
    two backends on a GPU.

    Yields:
        A function that connects them, once the first has called it; nothing where this process is the only one.
    """
    rank, count = rank_and_count()
    if count == 1:
        yield lambda: None
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, _, _ = next(torch.distributed.rendezvous("env://", rank, count, timeout=MEETING))
    try:
        yield lambda: _connect(store, rank, count, device)
    except RuntimeError as error:
        if "by peer" not in str(error):  # gloo's "connection closed by peer", "connection reset by peer"
            raise
        time.sleep(SECONDS_AFTER_ANOTHER)
        raise SystemExit(LOST_ANOTHER) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _connect(store: torch.distributed.Store, rank: int, count: int, device: torch.device) -> None:
    if rank == 0:
        store.set(PREPARED, "")
    while not store.check([PREPARED]):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=EXCHANGE)
