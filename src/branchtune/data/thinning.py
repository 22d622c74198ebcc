"""Binary regions -> lines of one pixel."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: offsets (row, column) of the neighbours x1..x8: east, then counter-clockwise
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin `[H, W]` until nothing changes; connected regions stay connected and lines keep their ends.

    The parallel algorithm of Guo and Hall (1989) in the form of Lam, Lee and Suen (1992, "A1"), as in MATLAB's
    `bwmorph(..., 'thin')` and scikit-image's `thin`: two half-steps in turn, each of which removes every pixel whose
    neighbourhood allows it. What lies outside the image counts as empty.
    """
    image = np.pad(np.asarray(mask, bool), 1)
    first, second = _removable()
    while True:
        before = np.count_nonzero(image)
        for table in (first, second):
            # Only pixels of the region are looked at: edges cover a few per cent of an image.
            rows, columns = np.nonzero(image)
            code = np.zeros(len(rows), np.uint8)
            for bit, (down, right) in enumerate(_NEIGHBOURS):
                code |= image[rows + down, columns + right].astype(np.uint8) << np.uint8(bit)
            gone = table[code]
            image[rows[gone], columns[gone]] = False
        if np.count_nonzero(image) == before:
            return image[1:-1, 1:-1].copy()


@cache
def _removable() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each of the 256 neighbourhoods, whether the first and the second half-step remove the pixel."""
    codes = np.arange(256)
    x = [(codes >> (i % 8) & 1).astype(bool) for i in range(9)]  # x[8] is x[0] again: x9 = x1
    crossings = sum((~x[i] & (x[i + 1] | x[i + 2])).astype(int) for i in (0, 2, 4, 6))
    pairs = sum((x[i] | x[i + 1]).astype(int) for i in (0, 2, 4, 6))
    shifted = sum((x[i + 1] | x[i + 2]).astype(int) for i in (0, 2, 4, 6))
    fewer = np.minimum(pairs, shifted)
    simple = (crossings == 1) & (fewer >= 2) & (fewer <= 3)
    return simple & ~((x[1] | x[2] | ~x[7]) & x[0]), simple & ~((x[5] | x[6] | ~x[3]) & x[4])
