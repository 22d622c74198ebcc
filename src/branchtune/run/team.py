"""The processes of one run: the first prepares what all need, all train, the first finishes alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from branchtune.training.processes import rank_and_count

# Fitting decoders and measuring affinity on a large set, while the other processes wait.
PATIENCE = timedelta(days=1)
# Another process has ended with an error, which it tells itself: that is to be the first failure that is noticed.
LOST_ANOTHER, SECONDS_AFTER_ANOTHER = 75, 5.0


@contextmanager
def together(device: torch.device) -> Iterator[Callable[[], None]]:
    """Connect the processes that `torchrun` has started for the block; after it each is alone, its metrics its own.

    Metrics are added up on the CPU whatever the device, hence two backends on a GPU.

    Yields:
        A function that returns when every process has called it; at once where this process is the only one.
    """
    if rank_and_count()[1] == 1:
        yield lambda: None
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield _wait
    except RuntimeError as error:
        if "by peer" not in str(error):  # gloo's "connection closed by peer", "connection reset by peer"
            raise
        time.sleep(SECONDS_AFTER_ANOTHER)
        raise SystemExit(LOST_ANOTHER) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _wait() -> None:
    torch.distributed.barrier()
