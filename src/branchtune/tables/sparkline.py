"""How a number moved, in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], higher_is_better: bool, length: int = 8, ascii_only: bool = False) -> str:
    """The last values from left to right, better ones drawn higher; those that are not finite are left out.

    Args:
        length: at most so many characters.
        ascii_only: a sign for each value instead: + better, - worse, = no different from the one before.
    """
    better = [value if higher_is_better else -value for value in values if math.isfinite(value)]
    if ascii_only:
        steps = zip(better[-length - 1 :], better[-length - 1 :][1:], strict=False)
        return "".join("+" if after > before else "-" if after < before else "=" for before, after in steps)
    shown = better[-length:]
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    if low == high:
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in shown)
