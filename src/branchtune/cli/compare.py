"""`branchtune compare CONFIG`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from branchtune.cli.arguments import FORMAT, configured
from branchtune.errors import UserError
from branchtune.settings import resolved

TEXT = """Train several methods with several seeds on one configuration, with equal tuning, and tabulate them: metrics,
delta_m over the single-task models, parameters by owner, MACs, time and memory. Interrupted, the same command goes on.
Writes comparison.json, comparison.md, pareto.svg and report.html into output/name."""
METHODS = ["full", "decoders", "shared", "separate", "comb", "branched", "random", "anti"]


def run(argv: Sequence[str]) -> None:
    settings, options = configured(
        "compare",
        TEXT,
        argv,
        methods={"type": list[str], "default": METHODS, "help": "methods beside the single-task models"},
        seeds={"type": list[int], "default": [0, 1, 2], "help": "every method is trained with each of them"},
        grid={
            "type": list[float],
            "default": [],
            "help": "multiples of each method's own learning rate to try with the first seed, e.g. [0.3,1,3]",
        },
        rates={
            "type": str | None,
            "default": None,
            "help": "a comparison.json of the same optimizer whose tuned multiples are taken over",
        },
        workers={
            "type": int,
            "default": 1,
            "help": "runs to train at a time, each with its share of the cores (a GPU serves all of them)",
        },
        format=FORMAT,
    )
    from branchtune.atomic import write_text
    from branchtune.cli.output import reporter_of, show
    from branchtune.comparison.compare import Comparer
    from branchtune.comparison.outcome import outcome
    from branchtune.comparison.page import write_comparison_report
    from branchtune.comparison.pareto import pareto
    from branchtune.comparison.result import Comparison
    from branchtune.report.page.write import after

    reporter = reporter_of(options)
    tuned = Comparison.load(Path(options.rates)) if options.rates else None
    if tuned and _optimizer(resolved(tuned.config)) != _optimizer(settings.flat()):
        raise UserError(f"{options.rates} has multiples of another optimizer's rates: set optimizer as there, or tune")
    rates = tuned.tuning if tuned else {}
    comparer = Comparer(settings, options.methods, options.seeds, options.grid, reporter, rates, options.workers)
    comparison = comparer.run(shlex.join(["branchtune", "compare", *argv]))
    comparison.save(comparer.folder / "comparison.json")
    final = outcome(comparison)
    write_text(comparer.folder / "comparison.md", final.markdown())
    pareto(comparison, comparer.folder / "pareto.svg")
    show(final, options, reporter)
    reporter.say(f"wrote {comparer.folder}/comparison.json, comparison.md and pareto.svg")
    after(lambda: write_comparison_report(comparer.folder, reporter), comparer.folder, reporter)


def _optimizer(flat: dict[str, Any]) -> dict[str, Any]:
    """The part of a flattened configuration that the tuned multiples belong to."""
    return {key: value for key, value in flat.items() if key.startswith("optimizer.")}
