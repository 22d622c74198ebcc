"""The crests of a soft edge map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIGMA = 1.5
SLACK = 1.01


def keep_ridges(probability: np.ndarray) -> np.ndarray:
    """Set to zero what is not at least as large as both neighbours across the edge: float `[H, W]` -> the same.

    Non-maximum suppression (J. Canny, "A computational approach to edge detection", 1986) on a map that has ridges
    rather than an image that has steps: the direction across is the eigenvector of the largest absolute eigenvalue of
    the Hessian (C. Steger, "An unbiased detector of curvilinear structures", 1998), of the map smoothed by a Gaussian
    of 1.5 pixels. The neighbours lie one pixel away and are interpolated linearly. A pixel may be 1 % below them, so
    that plateaus, as of a map of two values, are kept whole.
    """
    yy, yx, xx = (
        ndimage.gaussian_filter(probability, SIGMA, order=order, mode="nearest") for order in ((2, 0), (1, 1), (0, 2))
    )
    # the axis of the larger eigenvalue; the one of the larger magnitude is the other one where their sum is negative
    axis = 0.5 * np.arctan2(2 * yx, xx - yy)
    across = np.where(xx + yy > 0, axis, axis + np.pi / 2)
    dy, dx = np.sin(across), np.cos(across)
    y, x = np.indices(probability.shape)
    ridge = np.ones(probability.shape, dtype=bool)
    for sign in (1, -1):
        beside = ndimage.map_coordinates(probability, (y + sign * dy, x + sign * dx), order=1, mode="nearest")
        ridge &= SLACK * probability >= beside
    return np.where(ridge, probability, 0.0)
