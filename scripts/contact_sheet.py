"""Draw scenes with all their dense labels into one PNG: image, semseg, parts, saliency, normals, depth, edge per row.

python scripts/contact_sheet.py sheet.png --count 8 --size 128 128
"""

from __future__ import annotations

import argparse
import colorsys
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from branchtune.data.scenes import CLASSES, PARTS, render_scene

_GOLDEN = 0.618034


def _colours(count: int) -> NDArray[np.float64]:
    return np.array([colorsys.hsv_to_rgb(i * _GOLDEN % 1, 0.45 + 0.4 * (i % 2), 0.95) for i in range(count)])


def row(scene: dict[str, NDArray]) -> NDArray[np.float64]:
    """One scene's panels side by side, [H, 7 W, 3] in [0, 1]."""
    part_colours = _colours(len(PARTS))
    part_colours[0] = 0
    parts = np.where(scene["parts"] == 255, 0, scene["parts"])
    panels = [
        scene["image"].transpose(1, 2, 0),
        _colours(len(CLASSES))[scene["semseg"]],
        np.where((scene["parts"] == 255)[..., None], 0.35, part_colours[parts]),
        np.repeat(scene["saliency"][..., None], 3, 2),
        (scene["normals"].transpose(1, 2, 0) * (1, -1, -1) + 1) / 2,
        np.repeat(np.clip(1 - scene["depth"][..., None] / 7, 0, 1), 3, 2),
        np.repeat(scene["edge"][..., None], 3, 2),
    ]
    return np.concatenate(panels, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="the PNG to write")
    parser.add_argument("--count", type=int, default=8, help="scenes")
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images-only", action="store_true", help="only the images, eight per line")
    args = parser.parse_args()
    started = time.perf_counter()
    scenes = [render_scene(args.seed, args.first + i, *args.size, split=args.split) for i in range(args.count)]
    spent = time.perf_counter() - started
    if args.images_only:
        images = [scene["image"].transpose(1, 2, 0) for scene in scenes]
        images += [np.ones_like(images[0])] * (-len(images) % 8)
        sheet = np.concatenate([np.concatenate(images[i : i + 8], 1) for i in range(0, len(images), 8)])
    else:
        sheet = np.concatenate([row(scene) for scene in scenes])
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(args.path)
    print(f"{args.count} scenes of {args.size[0]}x{args.size[1]} at {args.count / spent:.1f} images/s")


if __name__ == "__main__":
    main()
