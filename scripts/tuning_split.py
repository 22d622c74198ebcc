"""A view of an NYUD_MT tree with validation images from its training list, to tune rates without the test images.

python scripts/tuning_split.py NYUD_MT OUT [COUNT]

OUT gets links to the folders of NYUD_MT and lists of its own: `val` is the last COUNT (120) training ids, which are
whole scenes but for the first one as NYU-Depth-v2 is numbered scene by scene, and `train` is the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(root: Path, out: Path, count: int = 120) -> None:
    ids = (root / "gt_sets" / "train.txt").read_text().split()
    if not 0 < count < len(ids):
        raise SystemExit(f"COUNT {count}: give 1 to {len(ids) - 1}, as {root} has {len(ids)} training images")
    (out / "gt_sets").mkdir(parents=True)
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name != "gt_sets":
            (out / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
    for split, chosen in (("train", ids[:-count]), ("val", ids[-count:])):
        (out / "gt_sets" / f"{split}.txt").write_text("".join(f"{name}\n" for name in chosen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
