"""Writes a tiny tree in the PASCAL_MT layout, file by file as in the published package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

import branchtune as bt

HEIGHT, WIDTH = 12, 16
SPLITS = {"train": ["2008_000001", "2008_000002", "2008_000003", "2008_000004"], "val": ["2009_000005", "2009_000006"]}
FOLDERS = (
    "ImageSets/Context",
    "JPEGImages",
    "semseg/VOC12",
    "semseg/pascal-context",
    "human_parts",
    "normals_distill",
    "sal_distill",
    "pascal-context/trainval",
)
WALL, SKY = 440, 360
PERSON, HORSE = 15, 13


def pascal_tasks() -> list[bt.Task]:
    return [
        bt.SemanticSegmentation("semseg", num_classes=21),
        bt.HumanParts("human_parts"),
        bt.Saliency("sal"),
        bt.Normals("normals"),
        bt.Edges("edge"),
    ]


def write_pascal_tree(root: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Both splits with random images and labels; even ids have a person, and semseg in the first of its folders."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, ids in SPLITS.items():
        write_ids(root, split, ids)
        for id_ in ids:
            write_sample(root, id_, size, rng)
    return root


def write_ids(root: Path, split: str, ids: Sequence[str]) -> None:
    (root / "ImageSets" / "Context" / f"{split}.txt").write_text("".join(f"{id_}\n" for id_ in ids))


def write_sample(root: Path, id_: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    even = int(id_[-1]) % 2 == 0
    Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{id_}.jpg")
    classes = rng.integers(21, size=size, dtype=np.uint8)
    classes[0] = 255
    save_palette(root / "semseg" / ("VOC12" if even else "pascal-context") / f"{id_}.png", classes)
    vectors = rng.normal(size=(*size, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    save_normals(root / "normals_distill" / f"{id_}.png", vectors)
    Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(root / "sal_distill" / f"{id_}.png")
    context = np.full(size, WALL)
    context[: size[0] // 2] = SKY
    save_context(root / "pascal-context" / "trainval" / f"{id_}.mat", context)
    mask = np.zeros(size, bool)
    mask[2:9, 3:9] = True
    things = [(HORSE, mask, [("head", mask)])]
    if even:
        head, hand = np.zeros(size, bool), np.zeros(size, bool)
        head[2:4, 4:7], hand[5:7, 3:5] = True, True
        things.append((PERSON, mask, [("hair", head), ("lhand", hand)]))
    save_parts(root / "human_parts" / f"{id_}.mat", id_, things)


def save_palette(path: Path, values: np.ndarray) -> None:
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([(7 * i + c) % 256 for i in range(256) for c in range(3)])
    image.save(path)


def save_normals(path: Path, vectors: np.ndarray) -> None:
    Image.fromarray(((vectors + 1) / 2 * 255).round().astype(np.uint8)).save(path)


def save_context(path: Path, values: np.ndarray) -> None:
    savemat(path, {"LabelMap": values.astype(np.uint16)}, do_compression=True)


def save_parts(
    path: Path, name: str, things: Sequence[tuple[int, np.ndarray, Sequence[tuple[str, np.ndarray]]]]
) -> None:
    """`anno.objects(i)` with class, class_ind, mask and parts(j) with part_name and mask, as in PASCAL-Part."""
    objects = np.empty((1, len(things)), [(k, object) for k in ("class", "class_ind", "mask", "parts")])
    for i, (index, mask, parts) in enumerate(things):
        listed: Any = np.zeros((0, 0))
        if parts:
            listed = np.empty((1, len(parts)), [("part_name", object), ("mask", object)])
            for j, (part, region) in enumerate(parts):
                listed[0, j] = (part, region.astype(np.uint8))
        objects[0, i] = ("thing", index, mask.astype(np.uint8), listed)
    anno = np.empty((1, 1), [("imname", object), ("objects", object)])
    anno[0, 0] = (name, objects)
    savemat(path, {"anno": anno}, do_compression=True)
