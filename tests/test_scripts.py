"""The scripts that remake or check results, on a tiny run."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from branchtune.cli.main import main
from branchtune.comparison.result import Comparison
from tiny_run import write_config

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    config = write_config(folder)
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 1"))
    assert main(["compare", str(config), "--methods=[decoders]", "--seeds=[0,1]", "--quiet"]) == 0
    return folder


@pytest.fixture
def stored(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "comparison.json"


def test_regenerated_results_agree_with_themselves(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("check_results").main(str(stored), str(stored)) == 0
    assert capsys.readouterr().out.count("agrees") == 2


def test_a_result_beyond_twice_the_error_differs(stored: Path, tmp_path: Path) -> None:
    comparison = Comparison.load(stored)
    worse = [
        dataclasses.replace(r, metrics={**r.metrics, "semseg": {"miou": 0.0}}) for r in comparison.runs["decoders"]
    ]
    dataclasses.replace(comparison, runs={"decoders": worse}).save(tmp_path / "new.json")
    assert script("check_results").main(str(tmp_path / "new.json"), str(stored)) == 1


def test_gradient_norms_name_every_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("gradient_norms").main(str(folder / "tiny.yaml"), [])
    printed = capsys.readouterr().out
    assert "balanced weight" in printed
    assert all(task in printed for task in ("semseg", "depth", "normals", "edge"))


def test_loader_rates_are_beside_that_of_training(folder: Path) -> None:
    rates = script("loader_rate").main(str(folder / "tiny.yaml"), ["--data.workers=0"])
    assert all(rates[key] > 0 for key in ("loader, first epoch", "loader, second epoch", "training"))
