"""`branchtune predict RUN IMAGES`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.errors import UserError
from branchtune.settings import parse

TEXT = """Apply a run's model to an image, or to every image of a folder. For each image and task two files are written:
<image>.<task>.npy, the output at the image's own size, and <image>.<task>.png, a picture of it."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune predict", description=TEXT)
    parser.add_argument("run", type=str, help="run directory")
    parser.add_argument("images", type=str, help="an image, or a folder of images")
    parser.add_argument("-o", "--out", type=str, default="predictions", help="folder to write to")
    parser.add_argument(
        "--tasks", type=list[str] | None, default=None, help="only these tasks; the others are not computed"
    )
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    paths = _images(Path(options.images))
    from branchtune.progress import Reporter
    from branchtune.run.predict import predict

    reporter = Reporter(options.quiet)
    skipped = predict(Path(options.run), paths, Path(options.out), options.tasks, reporter)
    reporter.say(f"wrote {len(paths) - len(skipped)} images to {options.out}")
    for reason in skipped:
        reporter.say(f"skipped {reason}")
    if len(skipped) == len(paths):
        raise UserError(f"none of the {len(paths)} images could be read")


def _images(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)})")
        return found
    if not path.exists():
        raise UserError(f"{path} does not exist: give an image or a folder of images")
    return [path]
