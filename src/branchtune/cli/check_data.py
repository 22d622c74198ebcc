"""`branchtune check-data PATH`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from branchtune.errors import UserError
from branchtune.settings import parse

TEXT = """Look through images and labels: how many there are, what the labels hold, ids listed twice or in two splits,
files that are missing, damaged or two of one id, labels of another size, values out of range. PATH is a folder in the
NYUD_MT or PASCAL_MT layout, or holds a dataset.yaml. The exit status is 0 when nothing is wrong, else 2."""

Kind = Literal["nyud", "pascal", "folder", "huggingface"]


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune check-data", description=TEXT)
    parser.add_argument("path", type=str, help="folder of the data, or a dataset.yaml")
    parser.add_argument("--kind", type=Kind | None, default=None, help="default: by what lies in the folder")
    parser.add_argument("--tasks", type=list[str] | None, default=None, help="only these labels")
    parser.add_argument("--splits", type=list[str] | None, default=None, help="only these splits")
    parser.add_argument("--limit", type=int | None, default=None, help="read only so many samples of each split")
    parser.add_argument("--sheet", type=str | None, default=None, help="write a contact sheet to this PNG file")
    parser.add_argument("--rows", type=int, default=4, help="samples of each split on the contact sheet")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument(
        "--all", action="store_true", help="list every problem, not the first 20 of each sort, and every class"
    )
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    _check_least(options, limit=1, rows=1, workers=0)
    from branchtune.data.check import check_source
    from branchtune.data.sources import open_source, recognise
    from branchtune.progress import Reporter
    from branchtune.report.data_table import data_table, problem_lines

    kind = options.kind or recognise(Path(options.path))
    source = open_source(kind, options.path, None)
    source.keep_labels(options.tasks)
    reporter = Reporter(options.quiet)
    with ExitStack() as stack:

        def begin(split: str, total: int) -> Callable[[], Any]:
            stack.close()
            return stack.enter_context(reporter.track(f"read {split}", total))

        summaries = check_source(
            source,
            options.splits,
            limit=options.limit,
            examples=options.rows if options.sheet else 0,
            workers=options.workers,
            begin=begin,
        )
    reporter.say(f"{options.path}: {kind}, " + ", ".join(f"{s.split} {s.listed} listed" for s in summaries))
    reporter.console.print(data_table(summaries, source.class_names, every_class=options.all))
    if options.tasks is None:
        for name, folders in source.absent.items():
            reporter.say(f"note: there is no label {name!r}, {folders} does not exist")
    for line in problem_lines(summaries, None if options.all else 20):
        reporter.say(line)
    examples = [sample for summary in summaries for sample in summary.examples]
    if options.sheet and examples:
        _write_sheet(Path(options.sheet), examples, {n: (source.kinds[n], c) for n, c in source.labels.items()})
        reporter.say(f"wrote {options.sheet}: image, {', '.join(source.labels)}")
    problems = sum(len(summary.problems) for summary in summaries)
    if problems:
        counted = f"{problems} problem{'s' if problems > 1 else ''}"
        skip = "; data.on_bad=skip trains without them" if all(summary.usable for summary in summaries) else ""
        raise UserError(f"{options.path}: {counted}, each named above{skip}")
    reporter.say("no problems found")


def _write_sheet(path: Path, examples: Sequence[Any], labels: Any) -> None:
    from branchtune.atomic import write_bytes
    from branchtune.pictures.contact_sheet import sheet
    from branchtune.pictures.encoding import image_bytes

    write_bytes(path, image_bytes(sheet(examples, labels), "PNG"))


def _check_least(options: Any, **least: int) -> None:
    for key, value in least.items():
        if options[key] is not None and options[key] < value:
            raise UserError(f"--{key}={options[key]}: must be at least {value}")
