"""An affinity matrix of many tasks as a picture, whose length hardly grows with them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from branchtune.affinity.matrix import Matrix

# Between those of the light and the dark page (--pos, --neg); alpha is the magnitude, what is under it the page's own.
POSITIVE, NEGATIVE = (79, 131, 201), (196, 107, 76)
STEPS = 16  # of the magnitude


def heat_picture(matrix: Matrix) -> str:
    """A data URI of a PNG with a pixel per pair of tasks, transparent at 0.

    Args:
        matrix: `[T, T]`; magnitudes above 1 have the colour of 1, what is not finite that of 0.
    """
    steps = np.rint(np.clip(np.nan_to_num(matrix, posinf=0.0, neginf=0.0), -1, 1) * STEPS).astype(int) + STEPS
    image = Image.fromarray(steps.astype(np.uint8), "P")
    image.putpalette(bytes([*NEGATIVE * STEPS, *POSITIVE * (STEPS + 1)]))
    file = io.BytesIO()
    alpha = bytes(round(255 * abs(step - STEPS) / STEPS) for step in range(2 * STEPS + 1))
    image.save(file, "PNG", optimize=True, transparency=alpha)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
