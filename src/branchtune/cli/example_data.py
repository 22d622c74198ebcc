"""`branchtune example-data OUT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.settings import parse

TEXT = """Render indoor scenes into the folder OUT: images, one folder of labels per task (semseg, depth, normals,
edge), lists of ids, and the dataset.yaml that declares them. OUT/new holds images without labels, to predict."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune example-data", description=TEXT)
    parser.add_argument("out", type=str, help="folder to write")
    parser.add_argument("--train", type=int, default=96, help="training images")
    parser.add_argument("--val", type=int, default=16, help="validation images")
    parser.add_argument("--new", type=int, default=4, help="images without labels")
    parser.add_argument("--size", type=tuple[int, int], default=(128, 128), help="height and width in pixels")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    from branchtune.data.example import UNLABELLED, write_example
    from branchtune.progress import Reporter

    out, counts = Path(options.out), (options.train, options.val, options.new)
    reporter = Reporter(options.quiet)
    with reporter.track("render scenes", sum(counts)) as advance:
        write_example(out, *counts, options.size, overwrite=options.overwrite, advance=advance)
    reporter.say(f"wrote {out}: {options.train} training and {options.val} validation images with labels")
    reporter.say(f"{out / UNLABELLED} holds {options.new} images without labels")
