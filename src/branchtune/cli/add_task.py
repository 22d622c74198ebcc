"""`branchtune add-task RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from branchtune.cli.derived import derived, report

TEXT = """Add a task to the model of a finished run: fit its decoder, train what is new with the run's recipe, evaluate
all tasks, write a new run directory. RUN stays as it is. The task is given as in a configuration,
--tasks.edge='{class_path: branchtune.Edges, init_args: {name: edge}}'; data and recipe are those of RUN unless
overridden. Interrupted at any moment, the same command continues."""


def run(argv: Sequence[str]) -> None:
    settings, options = derived(
        "add-task",
        TEXT,
        argv,
        like={"type": str | None, "default": None, "help": "the task whose path in the tree the new one follows"},
        share_levels={
            "type": int | None,
            "default": None,
            "help": "how many levels of it are shared, from the input on: 0 to all; below, the task has its own nodes",
        },
        init={
            "type": Literal["fresh", "copy"],
            "default": "fresh",
            "help": "of its own nodes: fresh, or a copy of those of --like",
        },
        train={
            "type": Literal["new", "all"],
            "default": "new",
            "help": "new: what the task alone uses, all else stays bit for bit; all: everything",
        },
    )
    from branchtune.cli.output import reporter_of
    from branchtune.run.fit import fit

    reporter = reporter_of(options)
    report(settings, fit(settings, reporter), options, reporter)
