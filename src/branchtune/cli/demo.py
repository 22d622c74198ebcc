"""`branchtune demo`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

from branchtune.cli.arguments import configured

TEXT = """The whole chain on an embedded example: rendered scenes, the small Swin that ships with the package, six
tasks. Trains the planned tree and one shared adapter set; other columns come from committed results of the same
configuration unless --train-all is given."""


def run(argv: Sequence[str]) -> None:
    with as_file(files("branchtune") / "demo" / "scenes.yaml") as path:
        settings, options = configured(
            "demo",
            TEXT,
            argv if {"-h", "--help"} & set(argv) else ["--config", str(path), *argv],
            train_all={"action": "store_true", "help": "train every column, and the reference, on this machine"},
        )
    from branchtune.demo.demo import demo
    from branchtune.progress import Reporter

    demo(settings, options.train_all, Reporter(options.quiet))
