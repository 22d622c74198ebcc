"""What is changed at random in a training sample, as a configuration (no torch here: the CLI imports it)."""

from __future__ import annotations

from dataclasses import dataclass

from branchtune.errors import UserError

MAX_SCALE = 10.0


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training sample; the defaults are the NYUD recipe of scale-lab/MTLoRA.

    Args:
        flip: probability of a horizontal flip, in [0, 1].
        scales: zoom factors s from 1 to 10, one drawn per sample: a random window of 1/s of height and width is
            kept, and depth is divided by s. `(1.0,)` is no zoom.
        jitter: brightness and contrast are each multiplied by a factor in [1 - jitter, 1 + jitter]; 0 is off.
    """

    flip: float = 0.5
    scales: tuple[float, ...] = (1.0, 1.2, 1.5)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise UserError(f"augmentation flip={self.flip}: a probability is between 0 and 1")
        if not self.scales or not all(1 <= scale <= MAX_SCALE for scale in self.scales):
            raise UserError(
                f"augmentation scales={self.scales}: give at least one factor in [1, {MAX_SCALE:g}], (1.0,) is no zoom"
            )
        if not 0 <= self.jitter < 1:
            raise UserError(f"augmentation jitter={self.jitter}: must be at least 0 and below 1")
