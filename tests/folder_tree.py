"""Writes a tiny tree in the folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import branchtune as bt

HEIGHT, WIDTH = 12, 16
SPLITS = {"train": ["a", "b", "c", "d"], "val": ["e", "f"]}
YAML = """
tasks:
  semseg: {kind: classes, num_classes: [road, car, person], ignore: [255]}
  depth: {kind: depth, units: mm}
  normals: {kind: normals}
  height: {kind: values, units: metres, range: [0, 5], partial: true}
"""


def folder_tasks() -> list[bt.Task]:
    return [bt.SemanticSegmentation("semseg", num_classes=3), bt.Depth("depth"), bt.Normals("normals")]


def write_folder_tree(root: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    for folder in ("images", "semseg", "depth", "normals", "height"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.yaml").write_text(YAML)
    rng = np.random.default_rng(0)
    for split, ids in SPLITS.items():
        (root / f"{split}.txt").write_text("\n".join(ids))
        for id_ in ids:
            Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(root / "images" / f"{id_}.png")
            classes = rng.integers(3, size=size, dtype=np.uint8)
            classes[0, 0] = 255
            Image.fromarray(classes).save(root / "semseg" / f"{id_}.png")
            millimetres = rng.integers(500, 9000, size=size, dtype=np.uint16)
            millimetres[0, 0] = 0
            Image.fromarray(millimetres).save(root / "depth" / f"{id_}.png")
            normals = rng.normal(size=(*size, 3))
            np.save(root / "normals" / f"{id_}.npy", normals / np.linalg.norm(normals, axis=-1, keepdims=True))
    np.save(root / "height" / "a.npy", rng.uniform(0, 5, size=size))
    return root
