"""Floating-point operations of a call: what arithmetic alone would make of a quotient of times."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Call


def operations(call: Call) -> int:
    """Of matrix products, convolutions and attention, by torch's counter; element-wise work is not counted."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
