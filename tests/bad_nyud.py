"""Ways to spoil a tree in the NYUD_MT layout, each the first or the last sample of one split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nyud_tree import HEIGHT, SPLITS, WIDTH, write_ids

FIRST, LAST = SPLITS["train"][0], SPLITS["train"][-1]


def list_twice(root: Path, split: str = "train") -> None:
    write_ids(root, split, [*SPLITS[split], SPLITS[split][0]])


def overlap(root: Path) -> None:
    write_ids(root, "train", [*SPLITS["train"], SPLITS["val"][0]])


def unlink(root: Path, split: str = "train") -> None:
    (root / "depth" / f"{SPLITS[split][-1]}.npy").unlink()


def unlink_image(root: Path) -> None:
    (root / "images" / f"{LAST}.jpg").unlink()


def corrupt_image(root: Path, split: str = "train") -> None:
    (root / "images" / f"{SPLITS[split][-1]}.jpg").write_bytes(b"\xff\xd8 no image")


def other_size(root: Path, split: str = "train") -> None:
    np.save(root / "edge" / f"{SPLITS[split][-1]}.npy", np.zeros((5, 6)))


def out_of_range(root: Path, split: str = "train") -> None:
    too_high = Image.fromarray(np.full((HEIGHT, WIDTH), 41, np.uint8))
    too_high.save(root / "segmentation" / f"{SPLITS[split][-1]}.png")
