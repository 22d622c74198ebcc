"""The renderer's entry point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from branchtune.errors import UserError, unknown

from ._labels import dense_labels, image_labels
from ._layout import compose
from ._shade import shade
from ._trace import cast

SPLITS = {"train": 0, "val": 1, "test": 2}


def render_scene(seed: int, index: int, height: int, width: int, split: str = "train") -> dict[str, NDArray]:
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if min(seed, index) < 0:
        raise UserError(f"scene seed {seed}, index {index}: both must be >= 0")
    if min(height, width) < 1:
        raise UserError(f"scene size {height}x{width}: both sides must be >= 1")
    layout, sensor = (
        np.random.default_rng(s) for s in np.random.SeedSequence((seed, SPLITS[split], index)).spawn(2)
    )
    scene = compose(layout)
    hits = cast(scene, height, width)
    return {
        "image": shade(scene, hits, height, width, sensor),
        **dense_labels(scene, hits, height, width),
        **image_labels(scene, hits, height, width),
    }
