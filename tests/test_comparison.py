"""`branchtune compare`: equal tuning, paired seeds, resumable, every raw number kept."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from branchtune.cli.main import main
from branchtune.comparison.outcome import outcome
from branchtune.comparison.result import Comparison, Tuning
from branchtune.comparison.summary import Spread, advantage, delta_ms, rows
from branchtune.comparison.tables import verdict
from branchtune.errors import UserError
from branchtune.planning import random_tree
from tiny_run import write_config

METHODS = ["branched", "shared", "comb", "random", "anti", "decoders"]
ARGUMENTS = [f"--methods={METHODS}".replace("'", ""), "--seeds=[0,1]", "--quiet", "--name=versus"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    config = write_config(folder)
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 1"))
    assert main(["compare", str(config), *ARGUMENTS, "--grid=[1,3]"]) == 0
    return folder


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    return Comparison.load(folder / "runs" / "versus" / "comparison.json")


def test_every_method_has_every_seed_at_its_own_best_rate(folder: Path, comparison: Comparison) -> None:
    assert set(comparison.runs) == set(METHODS)
    for method, results in comparison.runs.items():
        assert [r.seed for r in results] == [0, 1]
        assert all(r.method == method for r in results)
        scores = comparison.tuning["branched" if method in ("random", "anti") else method].scores
        assert scores["1"] == 0.0
        assert f"{comparison.tuning[method].factor:g}" == max(scores, key=lambda factor: scores[factor])
    assert (folder / "runs" / "versus" / "pareto.svg").read_text().startswith("<?xml")


def test_the_report_shows_the_runs_of_the_first_seed(folder: Path) -> None:
    html = (folder / "runs" / "versus" / "report.html").read_text(encoding="utf-8")
    titles = ["Results", "Quality against cost", "Groups of tasks", "Trees, seed 0", "Affinity, seed 0", "Cost"]
    titles += ["Tuned learning rates", "Learning curves", "Gradient conflict, seed 0"]
    titles += ["Gallery: branched, planned tree, seed 0"]
    assert [title for title in titles if f">{title}</h2>" not in html] == []
    assert html.count('aria-label="drawing of the tree') == len(METHODS) - 1  # decoders only trains no adapter
    assert "No gallery" not in html
    assert "None of the runs has a record" not in html
    assert len(html.encode()) < 5e6


def test_controls_take_the_rate_of_the_planned_tree_without_a_trial_of_their_own(
    folder: Path, comparison: Comparison
) -> None:
    for control in ("random", "anti"):
        assert comparison.tuning[control].factor == comparison.tuning["branched"].factor
        assert comparison.tuning[control].scores == {}
        assert len(list((folder / "runs" / "versus").glob(f"{control}-x*-0"))) == 1


def test_a_control_without_the_planned_tree_is_tuned_itself(folder: Path) -> None:
    arguments = ["--methods=[random]", "--seeds=[0]", "--quiet", "--name=alone", "--grid=[1,3]"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 0
    alone = Comparison.load(folder / "runs" / "alone" / "comparison.json")
    assert set(alone.tuning["random"].scores) == {"1", "3"}


def test_rates_of_the_planned_tree_serve_its_controls(folder: Path, comparison: Comparison) -> None:
    stored = folder / "runs" / "versus" / "comparison.json"
    content = json.loads(stored.read_text())
    content["tuning"].pop("anti")
    rates = folder / "rates.json"
    rates.write_text(json.dumps(content))
    arguments = ["--methods=[anti]", "--seeds=[0]", "--quiet", "--name=controls", f"--rates={rates}"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 0
    found = Comparison.load(folder / "runs" / "controls" / "comparison.json")
    assert found.tuning["anti"].factor == comparison.tuning["branched"].factor


def test_the_tuned_rate_is_the_one_that_the_method_trains_with(folder: Path) -> None:
    for method, key in (("branched", "lr"), ("decoders", "lr"), ("single", "lr")):
        name = f"{method}-x3-0" if method != "single" else "single-x3/single-depth-0"
        text = (folder / "runs" / "versus" / name / "config.yaml").read_text()
        assert f"    {key}: 0.003\n" in text


def test_controls_have_the_group_counts_of_the_planned_tree(comparison: Comparison) -> None:
    for seed in (0, 1):
        planned, *controls = (comparison.runs[method][seed] for method in ("branched", "random", "anti"))
        assert [r.groups for r in controls] == [planned.groups] * 2
        assert [r.parameters for r in controls] == [planned.parameters] * 2


def test_the_single_task_models_are_the_zero_of_delta_m(comparison: Comparison) -> None:
    single = rows(comparison)[0]
    assert single.delta_m.mean == pytest.approx(0.0, abs=1e-9)
    assert comparison.reference.settings["seeds"] == [0, 1]


def test_differences_are_paired_by_seed(comparison: Comparison) -> None:
    spread = advantage(comparison, "branched", "shared")
    pairs = np.subtract(delta_ms(comparison, "branched"), delta_ms(comparison, "shared"))
    assert spread.mean == pytest.approx(pairs.mean())
    assert spread.error == pytest.approx(pairs.std(ddof=1) / math.sqrt(2))


def test_memory_counts_what_training_keeps(comparison: Comparison) -> None:
    memory = {row.method: row.memory for row in rows(comparison)}
    assert memory["branched"] == memory["random"]
    assert memory["branched"] > memory["shared"] > memory["decoders"] > 0


def test_the_same_command_trains_nothing_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "runs" / "versus" / "comparison.json"
    before = path.read_text()
    assert main(["compare", str(folder / "tiny.yaml"), *ARGUMENTS, "--grid=[1,3]"]) == 0
    printed = capsys.readouterr().out
    assert "epoch" not in printed
    assert "fit decoders" not in printed
    assert "Differences of Δm" in printed
    assert path.read_text() == before


def test_markdown_holds_every_method_and_the_command(folder: Path, comparison: Comparison) -> None:
    text = outcome(comparison).markdown()
    assert text == (folder / "runs" / "versus" / "comparison.md").read_text()
    assert text.count("branched, planned tree") == 3 + 6
    assert "--seeds=[0,1]" in text


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_formats_for_programs(
    folder: Path, comparison: Comparison, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(folder / "tiny.yaml"), *ARGUMENTS, "--grid=[1,3]", f"--format={kind}"]) == 0
    captured = capsys.readouterr()
    assert "wrote" in captured.err
    expected = {row.method: row for row in rows(comparison)}
    planned = expected["branched"]
    if kind == "json":
        found = json.loads(captured.out)
        assert found["reference"]["id"] == comparison.reference.id
        assert found["summary"]["branched"]["delta_m"]["mean"] == planned.delta_m.mean
    else:
        found = {row["method"]: row for row in csv.DictReader(io.StringIO(captured.out))}
        assert list(found) == list(expected)
        assert float(found["branched"]["depth_mean"]) == planned.metrics["depth"].mean
        assert found["branched"]["reference"] == comparison.reference.id


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (3, 4.303), (10, 2.262)])
def test_the_interval_is_students(count: int, quantile: float) -> None:
    assert Spread(0.0, 1.0, count).margin == pytest.approx(quantile / math.sqrt(count), rel=1e-3)


def test_verdicts() -> None:
    assert verdict(Spread(1.0, 0.1, 4)) == "ahead"
    assert verdict(Spread(-1.0, 0.1, 4)) == "behind"
    assert verdict(Spread(0.1, 0.4, 4)) == "within noise"
    assert verdict(Spread(0.0, 0.0, 2)) == "within noise"
    assert verdict(Spread(1.0, 0.3, 2)) == "within noise"  # 4.7 standard errors are not enough for two seeds
    assert verdict(Spread.of([1.0])) == "one seed: undecided"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--methods=[brached]", "did you mean 'branched'"),
        ("--methods=[single]", "at least one seed and one method"),
        ("--methods=[shared,shared]", "one is given twice"),
        ("--seeds=[]", "at least one seed"),
        ("--grid=[0]", "positive multiples"),
    ],
)
def test_bad_input(argument: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert main(["compare", str(config), argument]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_comparison_is_named(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "runs" / "versus" / "comparison.json").read_text())
    for change, expected in (({"format": 99}, "newer"), ({"runs": 3}, "damaged")):
        path = tmp_path / "comparison.json"
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=expected):
            Comparison.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Comparison.load(path)


@pytest.mark.parametrize("counts", [(1, 1, 2, 4), (2, 2, 3, 3), (4, 4, 4, 4)])
def test_random_trees_have_the_counts_and_vary_with_the_seed(counts: tuple[int, ...]) -> None:
    trees = [random_tree(["a", "b", "c", "d"], counts, seed) for seed in range(20)]
    assert all(tree.group_counts == counts for tree in trees)
    assert trees[3] == random_tree(["d", "c", "b", "a"], counts, 3)
    assert (len(set(trees)) == 1) == (counts == (4, 4, 4, 4))


def test_random_trees_are_drawn_without_replacement_and_without_the_planned_one() -> None:
    tasks, counts = ["a", "b", "c", "d"], (1, 2, 2, 2)
    trees = [random_tree(tasks, counts, seed) for seed in range(7)]
    assert len(set(trees)) == 7  # all there are
    assert random_tree(tasks, counts, 7) == trees[0]
    others = {random_tree(tasks, counts, seed, but=[trees[2]]) for seed in range(6)}
    assert others == set(trees) - {trees[2]}
    only = random_tree(tasks, (1, 1, 1, 1), 0)
    assert random_tree(tasks, (1, 1, 1, 1), 0, but=[only]) == only
    assert random_tree(tasks, counts, 20261123) in trees


@pytest.mark.parametrize("counts", [(), (0, 1), (2, 1), (1, 5)])
def test_counts_that_no_tree_has(counts: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="do not decrease"):
        random_tree(["a", "b", "c", "d"], counts, 0)


def test_several_processes_give_the_same_numbers_and_take_over_tuned_rates(
    folder: Path, comparison: Comparison
) -> None:
    stored = folder / "runs" / "versus" / "comparison.json"
    arguments = [f"--methods={METHODS[:2]}".replace("'", ""), "--seeds=[0,1]", "--quiet", "--name=parallel"]
    config = str(folder / "tiny.yaml")
    assert main(["compare", config, *arguments, "--workers=2", "--grid=[1,3]", f"--rates={stored}"]) == 0
    again = Comparison.load(folder / "runs" / "parallel" / "comparison.json")
    assert again.tuning == {method: comparison.tuning[method] for method in ("single", *METHODS[:2])}
    assert again.reference.metrics == pytest.approx(comparison.reference.metrics)
    for method in METHODS[:2]:
        for ours, theirs in zip(again.runs[method], comparison.runs[method], strict=True):
            assert ours.heads == pytest.approx(theirs.heads)
    shared = folder / "runs" / "parallel" / f"shared-x{again.tuning['shared'].factor:g}-1"
    assert "fit decoders" not in (shared / "log.txt").read_text()  # those of the planned tree


def test_a_run_that_fails_in_its_process_ends_the_comparison(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "broken" / "decoders-x1-0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: other\n")
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", "--name=broken", "--workers=2"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 2
    assert "choose another --name, or delete the directory" in capsys.readouterr().err


def test_workers_below_one_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder / "tiny.yaml"), "--quiet", "--workers=0"]) == 2
    assert "workers=0: give at least 1" in capsys.readouterr().err


def test_several_processes_tune_as_one_does(folder: Path, comparison: Comparison) -> None:
    arguments = ["--methods=[shared]", "--seeds=[0]", "--quiet", "--name=tuned", "--workers=2", "--grid=[1,3]"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 0
    again = Comparison.load(folder / "runs" / "tuned" / "comparison.json")
    for method in ("single", "shared"):
        assert again.tuning[method].scores == pytest.approx(comparison.tuning[method].scores)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rate_that_diverges_loses(folder: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"wild{workers}"
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", f"--name={name}", f"--workers={workers}"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments, "--grid=[1e30,1]"]) == 0
    tuning = Comparison.load(folder / "runs" / name / "comparison.json").tuning
    assert tuning["decoders"] == Tuning(1.0, {"1e+30": None, "1": 0.0})
    assert "diverged" in capsys.readouterr().out
    assert ">diverged</td>" in (folder / "runs" / name / "report.html").read_text()


def test_a_grid_that_only_diverges_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", "--name=wilder", "--grid=[1e30,1e31]"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 2
    assert "diverges at every rate of the grid [1e+30, 1e+31]" in capsys.readouterr().err


def test_rates_that_miss_a_method_need_a_grid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = folder / "runs" / "versus" / "comparison.json"
    arguments = ["--methods=[separate]", "--seeds=[0]", "--quiet", "--name=partly", f"--rates={stored}"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 2
    assert "rates has none for 'separate'" in capsys.readouterr().err


def test_rates_of_another_optimizer_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = folder / "runs" / "versus" / "comparison.json"
    arguments = ["--methods=[shared]", "--seeds=[0]", f"--rates={stored}", "--optimizer.init_args.lr=0.1"]
    assert main(["compare", str(folder / "tiny.yaml"), *arguments]) == 2
    assert "multiples of another optimizer's rates" in capsys.readouterr().err


@pytest.mark.slow
def test_after_kill_9_no_worker_holds_a_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    arguments = ["compare", str(config), "--methods=[shared,decoders]", "--seeds=[0]", "--quiet", "--workers=2"]
    command = [sys.executable, "-c", "from branchtune.cli.main import entry; entry()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "runs").glob("*/*/decoders.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=240, check=False).returncode == 0
    assert (tmp_path / "runs" / "tiny" / "comparison.json").exists()
