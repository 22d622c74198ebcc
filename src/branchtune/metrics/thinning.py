"""Lines one pixel wide from masks of any width."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

# x1 ... x8: east, north-east, north, and on to south-east, as (row, column)
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(mask: np.ndarray) -> np.ndarray:
    """Thin a mask until nothing changes: bool `[H, W]` -> bool `[H, W]`, a subset with the same 8-connected parts.

    The parallel algorithm with two sub-iterations of Z. Guo and R. W. Hall, "Parallel thinning with two-subiteration
    algorithms" (Communications of the ACM, 1989), as in MATLAB's `bwmorph(..., 'thin')`, which leaves diagonals one
    pixel wide. A border pixel is deleted if its neighbourhood stays connected without it (C = 1), it is no end of a
    line (2 <= N <= 3), and it lies on the side that the sub-iteration peels. What lies outside the mask's array is
    background.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat = padded.reshape(-1)
    offsets = [dy * padded.shape[1] + dx for dy, dx in NEIGHBOURS]
    members = np.flatnonzero(flat)
    changed = True
    while changed:
        changed = False
        for table in _deletable():
            code = np.zeros(len(members), dtype=np.uint8)
            for bit, offset in enumerate(offsets):
                code |= flat[members + offset] << bit
            deleted = table[code]
            if deleted.any():
                flat[members[deleted]] = 0
                members = members[~deleted]
                changed = True
    return padded[1:-1, 1:-1].astype(bool)


@cache
def _deletable() -> tuple[np.ndarray, np.ndarray]:
    """For both sub-iterations, whether a pixel goes, by the eight bits of its neighbours (x1 is the lowest)."""
    tables = np.zeros((2, 256), dtype=bool)
    for bits in product((False, True), repeat=8):
        code = sum(bit << k for k, bit in enumerate(bits))
        tables[0, code], tables[1, code] = _deleted(bits)
    return tables[0], tables[1]


def _deleted(bits: tuple[bool, ...]) -> tuple[bool, bool]:
    x = (False, *bits, bits[0])  # x[1] ... x[8], and x[9] = x[1]
    crossings = sum(not x[i] and (x[i + 1] or x[i + 2]) for i in (1, 3, 5, 7))
    pairs = min(sum(x[i] or x[i + 1] for i in (1, 3, 5, 7)), sum(x[i] or x[i + 1] for i in (2, 4, 6, 8)))
    if crossings != 1 or not 2 <= pairs <= 3:
        return False, False
    return not ((x[2] or x[3] or not x[8]) and x[1]), not ((x[6] or x[7] or not x[4]) and x[5])
