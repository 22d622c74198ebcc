"""Bytes: the most that a call holds at a time beyond what was there before, and what stays between calls."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Call


def peak(call: Call, device: torch.device) -> int:
    """On a CPU from the profiler's record of every allocation and release."""
    call()  # what is made once and kept
    gc.collect()  # garbage of before, released within the call, would lower its peak
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    held = most = 0
    assert record.profiler is not None
    for event in sorted(record.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def resident(tensors: Iterable[Tensor]) -> int:
    """Of tensors, each memory counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
