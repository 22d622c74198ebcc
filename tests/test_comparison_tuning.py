"""`branchtune compare`: equal tuning, in one process or several, and rates taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from branchtune.cli.main import main
from branchtune.comparison.methods import with_rate
from branchtune.comparison.outcome import outcome
from branchtune.comparison.result import Comparison, Tuning
from branchtune.settings import Settings
from compared import METHODS, RATES, TWO
from tiny_run import write_config


def test_controls_take_the_rate_of_the_planned_tree_without_a_trial_of_their_own(
    compared: Path, comparison: Comparison
) -> None:
    for control in ("random", "anti"):
        assert comparison.tuning[control].factor == comparison.tuning["branched"].factor
        assert comparison.tuning[control].scores == {}
        assert len(list((compared / "runs" / "versus").glob(f"{control}-x*-0"))) == 1


def test_a_control_without_the_planned_tree_is_tuned_itself(compared: Path) -> None:
    arguments = ["--methods=[random]", "--seeds=[0]", "--quiet", "--name=alone", "--grid=[1,3]", *TWO]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 0
    alone = Comparison.load(compared / "runs" / "alone" / "comparison.json")
    assert set(alone.tuning["random"].scores) == {"1", "3"}


def test_rates_of_the_planned_tree_serve_its_controls(compared: Path, comparison: Comparison) -> None:
    stored = compared / "runs" / "versus" / "comparison.json"
    content = json.loads(stored.read_text())
    content["tuning"].pop("anti")
    rates = compared / "rates.json"
    rates.write_text(json.dumps(content))
    arguments = ["--methods=[anti]", "--seeds=[0]", "--quiet", "--name=controls", f"--rates={rates}", *TWO]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 0
    found = Comparison.load(compared / "runs" / "controls" / "comparison.json")
    assert found.tuning["anti"].factor == comparison.tuning["branched"].factor
    assert found.notes == ()


def test_rates_chosen_on_the_reported_images_are_said(comparison: Comparison) -> None:
    (note,) = comparison.notes
    assert note.startswith("The rates were chosen on the val split, which these tables are computed on too")
    assert note in outcome(comparison).markdown()


@pytest.mark.parametrize("tried", [{"1": 0.0, "3": 1.0, "10": 2.0}, {}])
def test_rates_of_another_grid_are_refused(
    compared: Path, tmp_path: Path, tried: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((compared / "runs" / "versus" / "comparison.json").read_text())
    content["tuning"]["branched"]["scores"] = tried
    rates = tmp_path / "rates.json"
    rates.write_text(json.dumps(content))
    arguments = ["--methods=[separate]", "--seeds=[0]", "--grid=[1,3]", f"--rates={rates}", "--quiet", "--name=unequal"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"'branched' was tuned with the multiples {', '.join(tried) or 'none'}, the grid has 1, 3" in error


def test_the_tuned_rate_is_the_one_that_the_method_trains_with(compared: Path) -> None:
    settings = Settings.load(compared / "tiny.yaml")
    configs = {"full": with_rate(settings, "full", 3).text()}  # which the comparison leaves out
    for method, run in (
        ("branched", "branched-x3-0"),
        ("decoders", "decoders-x3-0"),
        ("single", "single-x3/single-depth-0"),
    ):
        configs[method] = (compared / "runs" / "versus" / run / "config.yaml").read_text()
    tuned = {"branched": "lr", "decoders": "decoder_lr", "single": "backbone_lr", "full": "backbone_lr"}
    for method, text in configs.items():
        rates = yaml.safe_load(text)["optimizer"]["init_args"]
        expected = {**RATES, tuned[method]: 3 * RATES[tuned[method]]}
        assert {key: rates[key] for key in RATES} == pytest.approx(expected), method


def test_no_method_has_the_rate_of_its_decoders_tuned_as_well(compared: Path) -> None:
    nulls = {f"optimizer.init_args.{name}": None for name in ("decoder_lr", "backbone_lr")}
    settings = Settings.load(compared / "tiny.yaml").but(**nulls)
    lr = settings.config.optimizer.lr
    found = {}
    for method in ("shared", "full", "decoders"):
        tuned = with_rate(settings, method, 3.0).config.optimizer
        found[method] = (tuned.lr, tuned.decoder_lr, tuned.backbone_lr)
    assert found == {"shared": (3 * lr, lr, lr), "full": (lr, lr, 3 * lr), "decoders": (lr, 3 * lr, lr)}
    assert with_rate(settings, "shared", 1.0).text() == settings.text()


@pytest.mark.parametrize("seeds", [[1], pytest.param([0, 1], marks=pytest.mark.slow)], ids=["one seed", "two seeds"])
def test_several_processes_give_the_same_numbers_and_take_over_tuned_rates(
    compared: Path, comparison: Comparison, seeds: list[int]
) -> None:
    stored, name = compared / "runs" / "versus" / "comparison.json", f"parallel-{len(seeds)}"
    arguments = [f"--methods={METHODS[:2]}".replace("'", ""), f"--seeds={seeds}", "--quiet", f"--name={name}"]
    config = str(compared / "tiny.yaml")
    assert main(["compare", config, *arguments, "--workers=2", "--grid=[1,3]", f"--rates={stored}"]) == 0
    again = Comparison.load(compared / "runs" / name / "comparison.json")
    assert again.tuning == {method: comparison.tuning[method] for method in ("single", *METHODS[:2])}
    for task, values in comparison.reference.settings["values"].items():
        assert again.reference.settings["values"][task] == pytest.approx([values[seed] for seed in seeds])
    for method in METHODS[:2]:
        for seed, ours in zip(seeds, again.runs[method], strict=True):
            assert ours.heads == pytest.approx(comparison.runs[method][seed].heads)
    shared = compared / "runs" / name / f"shared-x{again.tuning['shared'].factor:g}-1"
    assert "fit decoders" not in (shared / "log.txt").read_text()  # those of the planned tree


@pytest.mark.slow
def test_several_processes_tune_as_one_does(compared: Path, comparison: Comparison) -> None:
    arguments = ["--methods=[shared]", "--seeds=[0]", "--quiet", "--name=tuned", "--workers=2", "--grid=[1,3]"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 0
    again = Comparison.load(compared / "runs" / "tuned" / "comparison.json")
    for method in ("single", "shared"):
        assert again.tuning[method].scores == pytest.approx(comparison.tuning[method].scores)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_rate_that_diverges_loses_and_is_not_tried_again(
    compared: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"wild{workers}"
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", f"--name={name}", f"--workers={workers}", *TWO]
    command = ["compare", str(compared / "tiny.yaml"), *arguments, "--grid=[1e30,1]"]
    assert main(command) == 0
    folder = compared / "runs" / name
    assert Comparison.load(folder / "comparison.json").tuning["decoders"] == Tuning(1.0, {"1e+30": None, "1": 0.0})
    assert "diverged" in capsys.readouterr().out
    html = (folder / "report.html").read_text()
    assert ">diverged</td>" in html
    assert ">Groups of tasks</h2>" not in html  # nothing trains adapters
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.csv")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.csv")} == before
    out = capsys.readouterr().out
    assert "the loss of task" not in out
    assert "decoders: learning rate x 1 of {'1e+30': 'diverged', '1': '+0.00'}" in out


def test_a_grid_that_only_diverges_is_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", "--name=wilder", "--grid=[1e30,1e31]"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert "no rate of the grid [1e+30, 1e+31] trains decoders only: decoders-x1e+30-0: the loss of task" in error
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    record = compared / "runs" / "wilder" / "decoders-x1e+30-0" / "diverged.json"
    assert f"(so {record} says: delete it, and the trial is made again)" in capsys.readouterr().err


def test_what_breaks_before_the_training_is_no_matter_of_its_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--methods=[shared]", "--seeds=[0]", "--quiet", "--grid=[1,3]", "--decoder_fit.lr=1e30"]
    assert main(["compare", str(write_config(tmp_path)), *arguments]) == 2
    error = capsys.readouterr().err
    assert "of fitting the decoders" in error
    assert "no rate of the grid" not in error


def test_rates_that_miss_a_method_need_a_grid(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = compared / "runs" / "versus" / "comparison.json"
    arguments = ["--methods=[separate]", "--seeds=[0]", "--quiet", "--name=partly", f"--rates={stored}"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    assert "rates has none for 'separate'" in capsys.readouterr().err


def test_rates_of_another_optimizer_are_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = compared / "runs" / "versus" / "comparison.json"
    arguments = ["--methods=[shared]", "--seeds=[0]", f"--rates={stored}", "--optimizer.init_args.lr=0.1"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    assert "multiples of another optimizer's rates" in capsys.readouterr().err
