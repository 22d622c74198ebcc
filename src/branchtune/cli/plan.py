"""`branchtune plan AFFINITY`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.atomic import write_json
from branchtune.cli.arguments import add_format
from branchtune.config import RunConfig
from branchtune.errors import UserError
from branchtune.settings import Settings, parse

TEXT = """Choose a tree from a measured affinity and print what every node costs.
AFFINITY is a run directory or an affinity.json. Give --groups, --budget or --budget_params."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune plan", description=TEXT)
    parser.add_argument("affinity", type=str, help="run directory or affinity.json")
    parser.add_argument("--groups", type=list[int] | None, default=None, help="number of groups per level")
    parser.add_argument("--budget", type=float | None, default=None, help="work as a multiple of one backbone pass")
    parser.add_argument("--budget_params", type=int | None, default=None, help="adapter parameters")
    parser.add_argument("--keep_agreeing", action="store_true", help="part only tasks whose affinity is below zero")
    parser.add_argument(
        "--adapter", type=Adapter | None, default=None, help="the adapter family; default: the run's, else LoRA"
    )
    parser.add_argument("--out", type=str | None, default=None, help="also write the tree to this JSON file")
    add_format(parser)
    options = parser.instantiate(parse(parser, argv))
    from branchtune.affinity import Affinity
    from branchtune.cli.output import show
    from branchtune.planning import plan
    from branchtune.planning.ranks import with_ranks_within
    from branchtune.progress import Reporter
    from branchtune.report.plan_outcome import plan_outcome
    from branchtune.run.say_plan import say_plan

    path = Path(options.affinity)
    affinity = Affinity.load(path / "affinity.json" if path.is_dir() else path)
    folder = path if path.is_dir() else path.parent
    config = _run_config(folder)
    adapter = options.adapter or (config.family if config else LoRA())
    limit = _adapter_limit(folder, config)
    tree = plan(
        affinity,
        adapter=adapter,
        groups=options.groups,
        budget=options.budget,
        budget_params=options.budget_params,
        adapter_params=limit,
        keep_agreeing=options.keep_agreeing,
    )
    if limit is not None:
        adapter = with_ranks_within(adapter, affinity.spec, tree, limit, options.budget or math.inf)
    reporter = Reporter(quiet=True, stderr=options.format is not None)
    reporter.say(str(affinity))
    say_plan(tree, affinity, adapter, reporter)
    if options.format:
        show(plan_outcome(tree, affinity, adapter), options, reporter)
    if options.out:
        write_json(Path(options.out), tree.to_json())


def _run_config(folder: Path) -> RunConfig | None:
    """That of the run that the affinity belongs to; None where there is none."""
    configuration = folder / "config.yaml"
    return Settings.load(configuration).config if configuration.is_file() else None


def _adapter_limit(folder: Path, config: RunConfig | None) -> int | None:
    """What the run's `adapter_share` gives to the adapters of any tree; None where it has none."""
    if config is None or config.adapter_share is None:
        return None
    try:
        return int(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["adapter_limit"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{folder}/manifest.json does not say how many parameters adapter_share={config.adapter_share:g} gives: "
            "the run's own command writes it again"
        ) from error
