"""What is changed at random in a training sample, as a configuration (no torch here: the CLI imports it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from branchtune.errors import UserError

MAX_SCALE = 10.0

Interpolation = Literal["linear", "cubic"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training sample; the defaults are close to the NYUD recipe of scale-lab/MTLoRA.

    Args:
        flip: probability of a horizontal flip, in [0, 1].
        scales: zoom factors s from 1 to 10, one drawn per sample: a window of 1/s of height and width is kept, and
            depth is divided by s. a single 1 is no zoom.
        window: where that window lies: `random`, or in the `centre` as in the published recipe.
        rotation: degrees; the image is turned about its centre by an angle in [-rotation, rotation]. 0 is off.
        scale_range: smallest and largest factor by which the image is scaled about its centre, from 0.1 to 10; below 1
            a border appears. Depth is divided by the factor. Null is off; applies beside `scales`.
        fill: what rotation and scaling leave empty is `ignore`d by every task, or becomes `zero` as in the published
            recipe: class 0 and value 0, ignored in depth, normals and maps that are ignored as a whole.
        jitter: brightness and contrast are each multiplied by a factor in [1 - jitter, 1 + jitter]; 0 is off.
    """

    flip: float = 0.5
    scales: tuple[float, ...] = (1.0, 1.2, 1.5)
    jitter: float = 0.0
    window: Literal["random", "centre"] = "random"
    rotation: float = 0.0
    scale_range: tuple[float, float] | None = None
    fill: Literal["ignore", "zero"] = "ignore"

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise UserError(f"augmentation flip={self.flip}: a probability is between 0 and 1")
        if not self.scales or not all(1 <= scale <= MAX_SCALE for scale in self.scales):
            raise UserError(
                f"augmentation scales={self.scales}: give at least one factor in [1, {MAX_SCALE:g}], (1.0,) is no zoom"
            )
        if not 0 <= self.jitter < 1:
            raise UserError(f"augmentation jitter={self.jitter}: must be at least 0 and below 1")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"augmentation rotation={self.rotation}: degrees between 0 and 180")
        if self.scale_range is not None:
            low, high = self.scale_range
            if not 1 / MAX_SCALE <= low <= high <= MAX_SCALE:
                raise UserError(
                    f"augmentation scale_range={self.scale_range}: smallest and largest factor, "
                    f"in [{1 / MAX_SCALE:g}, {MAX_SCALE:g}]"
                )
