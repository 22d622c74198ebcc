"""`branchtune predict RUN IMAGES`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from branchtune.cli.arguments import add_low_memory
from branchtune.errors import UserError
from branchtune.settings import parse

TEXT = """Apply a run's model to an image, or to every image of a folder. For each image and task two files are written:
<image>.<task>.npy, the prediction at the image's own size (class indices, depth in metres, unit normals,
probabilities), and <image>.<task>.png, a picture of it; and for each image <image>.sheet.png, all of them on one page.
Interrupted, the same command goes on; images that cannot be read are named and left out."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune predict", description=TEXT)
    parser.add_argument("run", type=str, help="run directory")
    parser.add_argument("images", type=str, help="an image, or a folder of images")
    parser.add_argument("-o", "--out", type=str, default="predictions", help="folder to write to")
    parser.add_argument(
        "--tasks", type=list[str] | None, default=None, help="only these tasks; the others are not computed"
    )
    parser.add_argument("--batch_size", type=int, default=8, help="images per pass of the model")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument(
        "--sheet",
        type=Literal["overlay", "beside", "none"],
        default="overlay",
        help="the pictures on the sheet: blended over the image, or beside it; none: no sheet",
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="also <image>.<task>.scores.npy, the scores of every class, float32 [classes, height, width]",
    )
    add_low_memory(parser)
    parser.add_argument("--overwrite", action="store_true", help="also predict what the folder holds already")
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    paths = _images(Path(options.images))
    if paths[0].parent.resolve() == Path(options.out).resolve():
        raise UserError(
            f"{options.out} holds the images, whose pictures would be predicted next time: choose another --out"
        )
    from branchtune.progress import Reporter
    from branchtune.run.predict import predict

    reporter = Reporter(options.quiet)
    done = predict(
        Path(options.run),
        paths,
        Path(options.out),
        options.tasks,
        reporter,
        batch_size=options.batch_size,
        workers=options.workers,
        overwrite=options.overwrite,
        low_memory=options.low_memory,
        sheet=None if options.sheet == "none" else options.sheet,
        scores=options.scores,
    )
    kept = f", {done.present} were there already" if done.present else ""
    replaced = f", {done.replaced} replace others of the same names, of another path or older" if done.replaced else ""
    reporter.say(f"wrote {done.written} images to {options.out}{kept}{replaced}")
    for reason in done.skipped:
        reporter.say(f"skipped {reason}")
    if len(done.skipped) == len(paths):
        raise UserError(f"none of the {len(paths)} images could be predicted, each is named above")


def _images(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)})")
        return found
    if not path.exists():
        raise UserError(f"{path} does not exist: give an image or a folder of images")
    return [path]
