"""`--format md|json|csv`: standard output holds that and nothing else."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from branchtune.cli.main import main
from branchtune.evaluation.references import Reference
from branchtune.run.results import Results
from finished_run import run_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def referred(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Results]:
    """Configuration and directory of a finished run that has a reference, and its results."""
    folder = tmp_path_factory.mktemp("referred")
    found = Results.load(run_of(finished) / "results.json")
    reference = Reference("ours", {task: value * 2 for task, value in found.heads.items()})
    reference.save(folder / "reference.json")
    run = folder / "runs" / "tiny"
    shutil.copytree(run_of(finished), run)
    config = run / "config.yaml"
    text = config.read_text().replace("reference: null", f"reference: {folder / 'reference.json'}")
    config.write_text(text.replace(str(finished.parent / "runs"), str(folder / "runs")))
    results = found.compared_with(reference)
    results.save(run / "results.json")
    return config, run, results


def out_of(arguments: list[str], capsys: Captured) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err
    return captured.out


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def table_of(text: str) -> list[list[str]]:
    """The cells of a text that is a GitHub table and then paragraphs."""
    table = text.split("\n\n")[0].splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in table)
    assert set(table[1]) <= set("|-: ")
    return [line[2:-2].split(" | ") for line in table]


def test_fit(referred: tuple[Path, Path, Results], capsys: Captured) -> None:
    config, _, results = referred
    call = ["fit", str(config), "--quiet", "--format"]
    content = json.loads(out_of([*call, "json"], capsys))
    assert content["reference"]["id"] == "ours"
    (run,) = content["runs"]
    assert run["metrics"] == results.to_json()["metrics"]
    assert run["delta_m"] == results.delta_m
    rows = rows_of(out_of([*call, "csv"], capsys))
    assert len(rows) == sum(map(len, results.metrics.values()))
    row = next(row for row in rows if (row["task"], row["metric"]) == ("depth", "rmse"))
    assert float(row["value"]) == results.metrics["depth"]["rmse"]
    assert (row["headline"], row["higher_is_better"], row["reference"]) == ("True", "False", "ours")
    assert float(row["gain_percent"]) == pytest.approx(50.0)
    text = out_of([*call, "md"], capsys)
    assert ["groups per level", "", "1-1-2-4"] in table_of(text)
    assert text.endswith("\n\nΔm divides by the reference 'ours'\n")


def test_evaluate(referred: tuple[Path, Path, Results], capsys: Captured) -> None:
    _, run, results = referred
    content = json.loads(out_of(["evaluate", str(run), "--quiet", "--format=json"], capsys))
    assert content["metrics"]["depth"]["rmse"] == pytest.approx(results.metrics["depth"]["rmse"], rel=1e-6)
    assert content["delta_m"] == pytest.approx(results.delta_m, rel=1e-4)
    assert content["reference"]["id"] == "ours"
    text = out_of(["evaluate", str(run), "--quiet", "--format=md"], capsys)
    assert table_of(text)[0] == ["task", "metric", "value", "reference", "gain %"]
    assert "% over the reference 'ours'" in text


def test_plan(finished: Path, capsys: Captured) -> None:
    call = ["plan", str(run_of(finished)), "--groups=[1,2,2,3]", "--format"]
    content = json.loads(out_of([*call, "json"], capsys))
    assert content["parameters"] == 19_712
    assert sum(node["macs"] for node in content["nodes"]) == content["macs"]
    rows = rows_of(out_of([*call, "csv"], capsys))
    assert [row["level"] for row in rows] == ["", "0", "1", "1", "2", "2", "3", "3", "3"]
    assert sum(float(row["macs_share"]) for row in rows) == pytest.approx(1.0)
    assert table_of(out_of([*call, "md"], capsys))[-1][1] == "total"


def test_another_format_is_refused(finished: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(run_of(finished)), "--format=xml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "format" in error


def test_a_terminal_without_unicode_gets_ascii(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", str(run_of(finished)), "--groups=[1,1,1,2]"]) == 0
    text = printed.getvalue().decode("ascii")
    assert "+-0." in text
    assert "`-o" in text
