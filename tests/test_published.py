"""Published tables: every row agrees with its own Δm but one that is known; their references load by name."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import get_args

import pytest

import branchtune as bt
from branchtune.evaluation.published import PublishedRow, PublishedTable, Status, published_reference, published_tables
from branchtune.run.packaged import packaged_reference

TABLES = published_tables()
ROWS = [(table, row) for table in TABLES.values() for row in table.rows]
CONTRADICTS = ("pascal_swin_t", "multi-task, full fine-tuning")
INCOMPLETE = {
    ("pascal_swin_t", "VMT-Adapter"),
    ("pascal_swin_t", "VMT-Adapter-Lite"),
    ("pascal_swin_t", "TS-σBN"),
    ("pascal_swin_t", "TSBN"),
    ("pascal_swin_t", "TGLoRA (progressive task-specific adaptation)"),
    ("nyud_swin_t", "TGLoRA (progressive task-specific adaptation)"),
}
every_row = pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table.id}: {row.method}" for table, row in ROWS])


@every_row
def test_a_consistent_row_reproduces_its_delta_m(table: PublishedTable, row: PublishedRow) -> None:
    computed = table.delta_m(row)
    if (table.id, row.method) in INCOMPLETE:
        assert computed is None
    elif (table.id, row.method) == CONTRADICTS:
        assert computed == pytest.approx(2.445, abs=0.001)
    else:
        assert computed == pytest.approx(row.delta_m, abs=0.02)


def test_the_one_row_that_contradicts_its_own_numbers() -> None:
    """Multi-task full fine-tuning on PASCAL is printed as +2.23; its own four numbers give +2.45."""
    found = {table.id: table.contradictions() for table in TABLES.values()}
    assert found.pop("nyud_swin_t") == {}
    ((method, (printed, computed)),) = found.pop("pascal_swin_t").items()
    assert (method, printed) == (CONTRADICTS[1], 2.23)
    assert computed == pytest.approx(2.445, abs=0.001)
    assert not found


@every_row
def test_every_row_says_where_it_is_from(table: PublishedTable, row: PublishedRow) -> None:
    assert row.source
    assert row.status in get_args(Status)
    assert set(row.values) <= set(table.tasks)
    assert (row.params_millions is None) == (row.counts is None)
    assert all(math.isfinite(value) and value > 0 for value in row.values.values())


def test_methods_are_named_once() -> None:
    for table in TABLES.values():
        names = [row.method for row in table.rows]
        assert len(names) == len(set(names))
        assert table.delta_m(table.rows[0]) == table.rows[0].delta_m == 0.0


def test_references_are_in_the_units_of_the_metrics() -> None:
    pascal = packaged_reference("pascal_swin_t_single_task")
    assert pascal is not None
    assert pascal.metrics == pytest.approx({"semseg": 0.6721, "human_parts": 0.6193, "sal": 0.6235, "normals": 17.97})
    assert pascal.id == "pascal_swin_t_single_task"
    assert pascal.settings["image_size"] == [448, 448]
    nyud = packaged_reference("nyud_swin_t_single_task")
    assert nyud is not None
    assert nyud.metrics == pytest.approx({"semseg": 0.4265, "depth": 0.60, "normals": 22.83})


def test_results_of_this_package_compare_with_a_published_reference() -> None:
    reference = packaged_reference("pascal_swin_t_single_task")
    assert reference is not None
    results = {"semseg": 0.6790, "human_parts": 0.5984, "sal": 0.6540, "normals": 16.60}
    directions = {name: task.higher_is_better for name, task in TABLES["pascal_swin_t"].tasks.items()}
    assert bt.delta_m(results, reference.metrics, directions) == pytest.approx(2.55, abs=0.02)


def test_metrics_and_directions_are_those_of_the_tasks() -> None:
    tasks = {
        "semseg": bt.SemanticSegmentation("semseg", 21),
        "human_parts": bt.HumanParts("human_parts"),
        "sal": bt.Saliency("sal"),
        "normals": bt.Normals("normals"),
        "depth": bt.Depth("depth"),
    }
    for table in TABLES.values():
        for name, published in table.tasks.items():
            expected = (tasks[name].headline, tasks[name].higher_is_better)
            assert (published.metric, published.higher_is_better) == expected


@pytest.mark.parametrize("name", ["pascal_swin_t", "nyud_swin_t", "unknown_single_task", "_single_task", "../x"])
def test_other_names_are_no_published_reference(name: str) -> None:
    assert published_reference(name) is None
    assert packaged_reference(name) is None


def test_the_tables_are_package_data() -> None:
    folder = files("branchtune") / "references" / "published"
    assert {file.name for file in folder.iterdir()} == {f"{name}.json" for name in TABLES}
