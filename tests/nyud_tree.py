"""Writes a tiny tree in the NYUD_MT layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from branchtune.tasks.depth import Depth
from branchtune.tasks.edges import Edges
from branchtune.tasks.normals import Normals
from branchtune.tasks.semseg import SemanticSegmentation
from branchtune.tasks.task import Task

CLASSES = 39
HEIGHT, WIDTH = 12, 16
SPLITS = {"train": ["0000", "0002", "0005", "0009"], "val": ["0001", "0003"]}
FOLDERS = {"images": ".jpg", "segmentation": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"}


def nyud_tasks() -> list[Task]:
    return [
        SemanticSegmentation("semseg", num_classes=CLASSES),
        Depth("depth"),
        Normals("normals"),
        Edges("edge"),
    ]


def write_nyud_tree(root: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Both splits with random images and labels; the top left pixel of every label is unlabelled."""
    for folder in (*FOLDERS, "gt_sets"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, ids in SPLITS.items():
        write_ids(root, split, ids)
        for id_ in ids:
            write_sample(root, id_, size, rng)
    return root


def write_ids(root: Path, split: str, ids: list[str]) -> None:
    (root / "gt_sets" / f"{split}.txt").write_text("".join(f"{id_}\n" for id_ in ids))


def write_sample(root: Path, id_: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(root / "images" / f"{id_}.jpg")
    classes = rng.integers(1, CLASSES + 1, size=size, dtype=np.uint8)
    depth = rng.uniform(0.5, 10, size=size).astype(np.float32)
    normals = rng.normal(size=(*size, 3))
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    classes[0, 0], depth[0, 0], normals[0, 0] = 0, 0, 0
    Image.fromarray(classes).save(root / "segmentation" / f"{id_}.png")
    np.save(root / "depth" / f"{id_}.npy", depth)
    np.save(root / "normals" / f"{id_}.npy", normals)
    np.save(root / "edge" / f"{id_}.npy", rng.integers(2, size=size).astype(np.float32))
