"""Copies of the run that the fixture `finished` trains, to be continued or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from branchtune.run.results import Results


def run_of(config: Path, name: str = "tiny") -> Path:
    return config.parent / "runs" / name


def continued(finished: Path, name: str, *without: str) -> tuple[Path, list[str]]:
    """A copy of the finished run that lacks its end and the files named, and the command that continues it."""
    run = run_of(finished, name)
    shutil.copytree(run_of(finished), run)
    known = run / "config.yaml"
    known.write_text(known.read_text().replace("name: tiny\n", f"name: {name}\n", 1))
    shutil.rmtree(run / "model")
    for file in ("results.json", *without):
        (run / file).unlink()
    return run, ["fit", str(finished), f"--name={name}", "--quiet"]


def copied(finished: Path, name: str) -> Path:
    run = run_of(finished, name)
    shutil.copytree(run_of(finished), run)
    return run


def changed(run: Path, **values: object) -> None:
    """With other values in its results."""
    path = run / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def page(run: Path) -> str:
    """Its report."""
    return (run / "report.html").read_text(encoding="utf-8")


def same_metrics(finished: Path, run: Path) -> bool:
    return Results.load(run / "results.json").metrics == Results.load(run_of(finished) / "results.json").metrics
