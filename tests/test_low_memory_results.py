"""The table of docs/devices.md says what results/low_memory holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchtune.settings import Settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "low_memory"
FILES = {"float32": "none", "bfloat16": "bfloat16", "int8": "int8"}
TASKS = Settings.load(ROOT / "configs" / "scenes_comparison.yaml").config.tasks


def metrics(name: str) -> dict[str, dict[str, float]]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["metrics"]


@pytest.mark.parametrize("weights", FILES)
def test_the_table_has_the_measured_numbers(weights: str) -> None:
    lines = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8").splitlines()
    [row] = [line for line in lines if line.startswith(f"| {weights} |")]
    found = metrics(FILES[weights])
    expected = [f"{found[name][task.headline]:.4f}" for name, task in TASKS.items()]
    assert [cell.strip() for cell in row.split("|")[3:-1]] == expected


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_no_metric_moves_by_more_than_a_thousandth(weights: str) -> None:
    before = metrics("none")
    for task, values in metrics(weights).items():
        assert values == pytest.approx(before[task], rel=1e-3), task
