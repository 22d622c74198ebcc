"""Contact sheets: images beside pictures of their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from branchtune.pictures.colour import target_picture
from branchtune.tasks.task import TargetKind


def sheet(
    samples: Sequence[Mapping[str, Any]], labels: Mapping[str, tuple[TargetKind, int]], height: int = 128
) -> NDArray[np.uint8]:
    """One row per sample: the image, then every label; `[rows * height, W, 3]`.

    Args:
        samples: raw ones, `image` uint8 or floats in [0, 1]; a label that one lacks stays grey.
        labels: kind and number of channels by name.
        height: of a row in pixels.
    """
    rows = [np.concatenate([_fit(panel, height) for panel in panels(s, labels)], axis=1) for s in samples]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def panels(sample: Mapping[str, Any], labels: Mapping[str, tuple[TargetKind, int]]) -> list[NDArray[np.uint8]]:
    """Pictures `[H, W, 3]` of the image and of every label."""
    image = torch.as_tensor(sample["image"])
    pixels = (255 * image).round().to(torch.uint8) if image.is_floating_point() else image
    pictures = [pixels.permute(1, 2, 0).numpy()]
    for name, (kind, channels) in labels.items():
        target = sample.get(name)
        empty = np.full(pictures[0].shape, 89, np.uint8)
        pictures.append(empty if target is None else target_picture(kind, torch.as_tensor(target), channels))
    return pictures


def _fit(panel: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    if panel.shape[0] == height:
        return panel
    width = max(1, round(panel.shape[1] * height / panel.shape[0]))
    return np.asarray(Image.fromarray(panel).resize((width, height), Image.Resampling.NEAREST))
