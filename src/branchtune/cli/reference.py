"""`branchtune reference CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence

from branchtune.cli.arguments import configured

TEXT = """Train one fully fine-tuned single-task model per task, with the configuration's decoder, data and recipe, and
store their results with their settings: what delta_m divides by."""


def run(argv: Sequence[str]) -> None:
    settings, options = configured(
        "reference",
        TEXT,
        argv,
        out={"type": str, "default": "reference.json", "help": "the file to write"},
        id={"type": str | None, "default": None, "help": "name shown beside every delta_m; default: the run's name"},
        seeds={"type": list[int] | None, "default": None, "help": "train with each of these seeds and store the mean"},
    )
    from branchtune.progress import Reporter
    from branchtune.run.reference import train_reference

    reporter = Reporter(options.quiet)
    seeds = options.seeds if options.seeds is not None else [settings.config.seed]
    reference = train_reference(settings, seeds, options.id or settings.config.name, reporter)
    if not settings.config.trainer.get("fast_dev_run"):
        reference.save(options.out)
    for task, value in reference.metrics.items():
        reporter.say(f"{task}: {value:.4f}")
    if not settings.config.trainer.get("fast_dev_run"):
        reporter.say(f"wrote {options.out}")
