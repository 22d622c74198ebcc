"""The comparison table: readable in 80 characters, with every number's unit."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import branchtune as bt
from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.report.run_outcome import evaluation_outcome, runs_outcome
from branchtune.report.table import Column, comparison
from branchtune.run.results import Results

METRICS = {"semseg": ("miou", True, 0.4321), "normals": ("mean_angle", False, 24.31), "edge": ("best_f_dt", True, 0.5)}
REFERENCE = Reference(
    "ours",
    {task: value for task, (_, _, value) in METRICS.items()},
    {
        "parameters": {"adapters": 0, "extras": 0, "decoders": 999_999, "backbone": 16_000_000},
        "macs": {"backbone": 720_000_000, "decoders": 2_100_000_000},
        "ms_per_image": 19.2,
    },
)


def results(factor: float = 1.0) -> Results:
    return Results(
        name="x",
        method="branched",
        seed=0,
        headline={task: metric for task, (metric, _, _) in METRICS.items()},
        higher_is_better={task: higher for task, (_, higher, _) in METRICS.items()},
        metrics={task: {metric: value * factor, "loss": 1.0} for task, (metric, _, value) in METRICS.items()},
        parameters={"adapters": 271_360, "extras": 0, "decoders": 999_999, "backbone": 0, "frozen": 2_700_000},
        macs={"backbone_plain": 120_000_000, "backbone": 180_000_000, "decoders": 2_100_000_000},
        ms_per_image=3.217,
        train_seconds=10.0,
        reference=None,
        gains=None,
        delta_m=None,
        groups=[1, 1, 2, 6],
        tree={},
        hardware="cpu",
        versions={},
    )


def printed(columns: list[Column], reference: Reference | None, width: int = 80) -> list[str]:
    text = io.StringIO()
    Reporter(console=Console(file=text, width=width)).table(comparison(columns, reference))
    return text.getvalue().splitlines()


def test_five_columns_fit_in_80_characters_with_one_line_per_number() -> None:
    titles = ["decoders\nonly", "one shared\nset", "one set\nper task", "branched\ntree"]
    columns = [Column(title, results().compared_with(REFERENCE), committed=title[0] == "o") for title in titles]
    lines = printed(columns, REFERENCE)
    assert max(map(len, lines)) <= 80
    rows = {tuple(line.split())[:2]: line.split() for line in lines if line.strip()}
    assert rows["normals", "mean_angle"][2:] == ["↓", *["24.31"] * 5]
    assert rows["Δm", "%"][2:] == ["0", *["+0.00"] * 4]
    assert rows["params", "adapters"][2:] == ["0", *["271k"] * 4]
    assert rows["params", "decoders"][2:] == ["1.00M"] * 5
    assert rows["params", "backbone"][2:] == ["16.0M", *["0"] * 4]
    assert rows["MACs", "decoders"][2:] == ["2.10G"] * 5
    assert rows["groups", "per"][3:] == ["1-1-2-6"] * 4
    assert ("params", "extras") not in rows
    assert sum(line.count("*") for line in lines) == 2


def test_without_a_reference_there_is_no_column_for_it_and_no_delta_m() -> None:
    lines = printed([Column("ours", results())], None)
    assert not any("single" in line or "Δm" in line for line in lines)


def test_a_metric_without_label_is_a_dash_and_has_no_delta_m(tmp_path: Path) -> None:
    found = results()
    found = replace(found, metrics={**found.metrics, "edge": {"best_f_dt": math.nan, "loss": math.nan}})
    assert found.compared_with(REFERENCE).delta_m is None
    lines = printed([Column("ours", found.compared_with(REFERENCE))], REFERENCE)
    assert next(line for line in lines if "edge" in line).split()[-1] == "-"
    note = ["-: no label of edge among the evaluated samples"]
    assert runs_outcome([Column("ours", found)], None).notes == note
    tasks = {name: bt.Depth(name) for name in found.metrics}
    assert evaluation_outcome("runs/x", found.metrics, {}, tasks, None).notes == note
    found.save(tmp_path / "results.json")
    assert math.isnan(Results.load(tmp_path / "results.json").heads["edge"])


def test_columns_with_other_headlines_have_the_same_metric_in_a_row() -> None:
    other = replace(
        results(),
        headline={**results().headline, "normals": "median_angle"},
        metrics={**results().metrics, "normals": {"median_angle": 11.0, "mean_angle": 22.0, "loss": 1.0}},
    )
    lines = printed([Column("a", results()), Column("b", other)], None)
    assert next(line for line in lines if "normals" in line).split() == ["normals", "mean_angle", "↓", "24.31", "22.00"]
    with pytest.raises(UserError, match="run 'x' has no median_angle of 'normals', by which the run beside it is"):
        comparison([Column("b", other), Column("a", results())], None)


def test_delta_m_is_the_mean_gain_with_the_sign_of_each_metric() -> None:
    compared = results(1.1).compared_with(REFERENCE)
    assert compared.gains == pytest.approx({"semseg": 10.0, "normals": -10.0, "edge": 10.0})
    assert compared.delta_m == pytest.approx(10 / 3)
    assert compared.reference == "ours"


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 1}', "not JSON", '{"format": 1, "metrics": 3}'])
def test_damaged_results_are_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"results\.json.* is damaged"):
        Results.load(path)


def test_results_of_a_newer_format() -> None:
    with pytest.raises(UserError, match=r"results\.json has format 2, this version reads 1: update"):
        Results.from_json({"format": 2}, "results.json")
