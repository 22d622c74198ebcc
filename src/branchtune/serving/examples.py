"""Images to try: of a folder, or of the run's own test split."""

from __future__ import annotations

import mimetypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from branchtune.errors import UserError, reason_of
from branchtune.run.inference import pixels_of
from branchtune.run.loaders import make_dataset
from branchtune.run.workbench import Workbench
from branchtune.serving.fitting import fitting_bytes, fitting_file
from branchtune.serving.limits import Limits

# Files that browsers show, and Pillow's names of their formats.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
MOST = 12
OF_A_RUN = 6


@dataclass(frozen=True)
class Example:
    """One image.

    Args:
        name: shown to people.
        source: its file, or the bytes of one.
    """

    name: str
    source: Path | bytes

    @property
    def media_type(self) -> str:
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def folder_examples(folder: Path, limits: Limits) -> list[Example]:
    """The first dozen images of a folder, those that are more than the server takes made smaller.

    One that cannot be made smaller is left out, which is said.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--examples {folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS)
    if not files:
        raise UserError(f"--examples {folder}: holds no image ({', '.join(FORMATS)})")
    found = []
    for path in files[:MOST]:
        try:
            found.append(Example(path.name, fitting_file(path, FORMATS[path.suffix.lower()], limits)))
        except UserError as error:
            print(f"not among the images to try: {error}", file=sys.stderr)
    return found


def run_examples(bench: Workbench, limits: Limits) -> list[Example]:
    """A few images from all over the split that the run's results are computed on, made smaller where they are large.

    None where its data are gone or a user's own reading of them fails, which is said: the model is served without.
    """
    try:
        dataset: Any = make_dataset(bench.config.data, bench.test_split, [], *bench.normalisation, bench.config.seed)
        count = min(OF_A_RUN, len(dataset))
        return [_example(dataset, index * len(dataset) // count, bench, limits) for index in range(count)]
    except Exception as error:
        print(f"no images to try: {reason_of(error)}", file=sys.stderr)
        return []


def _example(dataset: Any, index: int, bench: Workbench, limits: Limits) -> Example:
    source = getattr(dataset, "source", None)
    if source is not None:  # at its file's own shape
        id_ = dataset.ids[index]
        image = torch.as_tensor(source.read(id_, dataset.split)["image"])
        image = (255 * image).round().to(torch.uint8) if image.is_floating_point() else image  # of a table
        pixels = image.permute(1, 2, 0).numpy()
    else:
        sample = dataset[index]
        id_, pixels = sample["id"], pixels_of(sample["image"], *bench.normalisation)
    return Example(f"{id_}.png", fitting_bytes(pixels, "PNG", limits))
