"""The scripts that remake or check results, on a tiny run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from branchtune.cli.main import main
from branchtune.comparison.result import Comparison
from branchtune.errors import UserError
from nyud_tree import write_nyud_tree
from project_scripts import script
from tiny_run import write_config

NOISY = 100.0  # points: two seeds of a run of seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    config = write_config(folder)
    text = config.read_text().replace("max_epochs: 3", "max_epochs: 1").replace("[1, 1, 2, 4]", "[1, 1, 2, 2]")
    config.write_text(re.sub(r"  (normals|edge): .*\n", "", text))  # two of four tasks: half of the runs
    assert main(["compare", str(config), "--methods=[decoders]", "--seeds=[0,1]", "--quiet"]) == 0
    return folder


@pytest.fixture
def stored(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "comparison.json"


def test_regenerated_results_agree_with_themselves(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("check_results").main(str(stored), str(stored), NOISY) == 0
    assert capsys.readouterr().out.count("agrees") == 2


def test_a_result_beyond_twice_the_error_differs(stored: Path, tmp_path: Path) -> None:
    comparison = Comparison.load(stored)
    worse = [
        dataclasses.replace(r, metrics={**r.metrics, "semseg": {"miou": 0.0}}) for r in comparison.runs["decoders"]
    ]
    dataclasses.replace(comparison, runs={"decoders": worse}).save(tmp_path / "new.json")
    assert script("check_results").main(str(tmp_path / "new.json"), str(stored), NOISY) == 1


def test_agreement_says_nothing_where_seeds_differ_by_points(stored: Path) -> None:
    assert script("check_results").main(str(stored), str(stored)) == 1


def test_a_configuration_from_before_a_key_was_there_is_the_same(stored: Path, tmp_path: Path) -> None:
    comparison, old = Comparison.load(stored), tmp_path / "old.json"
    lines = [line for line in comparison.config.splitlines() if not line.startswith("start_from:")]
    assert len(lines) < len(comparison.config.splitlines())
    dataclasses.replace(comparison, config="\n".join(lines)).save(old)
    assert script("check_results").main(str(stored), str(old), NOISY) == 0


def test_before_training_it_says_what_differs(folder: Path, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "tiny.yaml"
    assert script("check_results").main(str(config), str(stored)) == 0
    other = folder / "other.yaml"
    other.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    assert script("check_results").main(str(other), str(stored)) == 2
    assert "another configuration: trainer" in capsys.readouterr().err


def test_gradient_norms_name_every_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("gradient_norms").main(str(folder / "tiny.yaml"), [])
    printed = capsys.readouterr().out
    assert "balanced" in printed
    assert all(task in printed for task in ("semseg", "depth"))


def test_loader_rates_are_beside_that_of_training(folder: Path) -> None:
    rates = script("loader_rate").main(str(folder / "tiny.yaml"), ["--data.workers=0"])
    assert all(rates[key] > 0 for key in ("loader, first epoch", "loader, second epoch", "training"))


def test_a_tuning_split_takes_its_validation_images_from_the_training_list(tmp_path: Path) -> None:
    root = write_nyud_tree(tmp_path / "nyud")
    script("tuning_split").main(root, tmp_path / "view", 1)
    lists = {path.stem: path.read_text().split() for path in (tmp_path / "view" / "gt_sets").iterdir()}
    assert lists == {"train": ["0000", "0002", "0005"], "val": ["0009"]}
    assert (tmp_path / "view" / "images" / "0009.jpg").is_file()
    with pytest.raises(SystemExit, match="COUNT 4: give 1 to 3"):
        script("tuning_split").main(root, tmp_path / "other", 4)


def test_logs_of_a_comparison_hold_metrics_plans_and_mean_cosines(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for name in ("branched-x1-0", "single-x1/single-depth-0"):
        (runs / name).mkdir(parents=True)
        (runs / name / "metrics.csv").write_text("epoch,task\n0,depth\n")
        (runs / name / "log.txt").write_text("train: 1 of 2\n")
    planned = runs / "branched-x1-0"
    plan = "affinity on tiny\n1.0\ntree\n"
    (planned / "log.txt").write_text(f"affinity on tiny\nkilled here\n{plan}train branched-x1-0: 1 of 2\n")
    rows = ("0,0,0/a+b,a,b,0.1", "1,0,0/a+b,a,b,0.3", "1,1,1/a+c,a,c,-1")
    (planned / "conflict.csv").write_text("\n".join(["epoch,level,node,task_a,task_b,cosine", *rows]))
    script("comparison_logs").main(runs, out)
    metrics = "epoch,task\n0,depth\n"
    assert (out / "metrics.log").read_text() == f"== branched-x1-0\n{metrics}== single-x1/single-depth-0\n{metrics}"
    assert (out / "plans.log").read_text() == f"== branched-x1-0\n{plan}"
    assert (out / "conflict.csv").read_text().splitlines() == [
        "run,level,task_a,task_b,epochs,mean,standard_error",
        "branched-x1-0,0,a,b,2,0.2000,0.1000",
        "branched-x1-0,1,a,c,1,-1.0000,",
    ]
    with pytest.raises(UserError, match="holds no run"):
        script("comparison_logs").main(out, out)
