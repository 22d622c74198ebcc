"""What a server takes, and how long it waits for company (without torch, for the command line)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from branchtune.errors import UserError

MOST_NUMBERS = 2_000_000  # of an answer in JSON
MOST_ARRAYS = 256_000_000  # bytes of an answer's arrays
HELPERS = 2  # threads that decode images and make answers
ANSWERS = 4  # in memory at a time, from when they are made until they are sent
MOST_PIXELS = 89_000_000  # above that Pillow takes a file for an attack


@dataclass(frozen=True)
class Limits:
    """Limits of one server.

    Args:
        max_bytes: of one request.
        max_pixels: of one image. Predictions are made at the image's size: 12 bytes a pixel for normals.
        max_delay_ms: how long a request waits for others to share a pass of the model with.
        max_batch: images in one pass.

    Raises:
        UserError: a number out of its range.
    """

    max_bytes: int = 32_000_000
    max_pixels: int = 16_000_000
    max_delay_ms: float = 10.0
    max_batch: int = 8

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.max_pixels > MOST_PIXELS:
            raise UserError(f"max_pixels={self.max_pixels}: at most {MOST_PIXELS}")
        if not 0 <= self.max_delay_ms < math.inf:
            raise UserError(f"max_delay_ms={self.max_delay_ms}: must be a number of milliseconds, 0 for no delay")

    @property
    def max_inside(self) -> int:
        """Requests with an image that are let in at a time: from before it is read until the answer is sent."""
        return 8 * self.max_batch
