"""Draw scenes with all their dense labels into one PNG: image, semseg, parts, saliency, normals, depth, edge per row.

python scripts/contact_sheet.py sheet.png --count 8 --size 128 128
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from PIL import Image

from branchtune.data.scenes import CLASSES, PARTS, render_scene
from branchtune.pictures.contact_sheet import sheet
from branchtune.tasks.task import TargetKind

LABELS: dict[str, tuple[TargetKind, int]] = {
    "semseg": ("classes", len(CLASSES)),
    "parts": ("classes", len(PARTS)),
    "saliency": ("values", 1),
    "normals": ("normals", 3),
    "depth": ("depth", 1),
    "edge": ("values", 1),
}


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
        picture = np.concatenate([np.concatenate(images[i : i + 8], 1) for i in range(0, len(images), 8)])
        picture = (picture * 255).round().astype(np.uint8)
    else:
        picture = sheet(scenes, LABELS, height=args.size[0])
    Image.fromarray(picture).save(args.path)
    print(f"{args.count} scenes of {args.size[0]}x{args.size[1]} at {args.count / spent:.1f} images/s")


if __name__ == "__main__":
    main()
