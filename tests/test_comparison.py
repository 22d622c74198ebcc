"""`branchtune compare`: paired seeds, resumable, every raw number kept."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from branchtune.cli.main import main
from branchtune.comparison.outcome import outcome, provenance
from branchtune.comparison.pareto import front
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Spread, advantage, delta_ms, rows
from branchtune.comparison.tables import verdict
from branchtune.errors import UserError
from compared import ARGUMENTS, METHODS
from tiny_run import write_config


def test_every_method_has_every_seed_at_its_own_best_rate(compared: Path, comparison: Comparison) -> None:
    assert set(comparison.runs) == set(METHODS)
    for method, results in comparison.runs.items():
        assert [r.seed for r in results] == [0, 1]
        assert all(r.method == method for r in results)
        scores = comparison.tuning["branched" if method in ("random", "anti") else method].scores
        assert scores["1"] == 0.0
        assert f"{comparison.tuning[method].factor:g}" == max(scores, key=lambda factor: scores[factor])
    assert (compared / "runs" / "versus" / "pareto.svg").read_text().startswith("<?xml")


def test_the_report_shows_the_runs_of_the_first_seed(compared: Path) -> None:
    html = (compared / "runs" / "versus" / "report.html").read_text(encoding="utf-8")
    titles = ["Results", "Quality against cost", "Groups of tasks", "Trees, seed 0", "Affinity, seed 0", "Cost"]
    titles += ["Tuned learning rates", "Learning curves", "Gradient conflict, seed 0"]
    titles += ["Gallery: branched, planned tree, seed 0"]
    assert [title for title in titles if f">{title}</h2>" not in html] == []
    assert html.count('aria-label="drawing of the tree') == len(METHODS) - 1  # decoders only trains no adapter
    assert "No gallery" not in html
    assert "None of the runs has a record" not in html
    assert len(html.encode()) < 5e6


def test_the_report_says_what_the_comparison_holds_for(compared: Path, comparison: Comparison) -> None:
    html = (compared / "runs" / "versus" / "report.html").read_text(encoding="utf-8")
    assert "<dt>backbone</dt><dd>test_vit</dd>" in html
    assert "<dt>image size</dt><dd>32×32</dd>" in html
    assert "<dt>data</dt><dd>nyud; 4 train, 2 val images</dd>" in html
    assert "Metrics are computed on 2 images of split “val”." in html
    assert comparison.notes
    assert all(f'<p class="note">{note}</p>' in html for note in comparison.notes)


def test_the_report_leaves_out_runs_that_are_not_whole_or_not_of_this_comparison(
    compared: Path, comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "versus"
    shutil.copytree(compared / "runs" / "versus", folder)
    shared, branched = (Path(comparison.runs[method][0].name).name for method in ("shared", "branched"))
    (folder / shared / "model" / "decoders.safetensors").unlink()
    shutil.copy(folder / shared / "results.json", folder / branched)
    assert main(["report", str(folder), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"no trees, conflict and gallery of {shared}: " in out
    assert "decoders.safetensors is missing or damaged" in out
    assert f"no trees, conflict and gallery of {branched}: it is not the run of this comparison" in out
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count('aria-label="drawing of the tree') == len(METHODS) - 3


def test_learning_curves_are_of_the_runs_of_the_comparison_alone(
    compared: Path, comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "versus"
    shutil.copytree(compared / "runs" / "versus", folder)
    second = {method: folder / Path(runs[1].name).name for method, runs in comparison.runs.items()}
    for method in ("branched", "shared", "comb"):
        path = second[method] / "metrics.csv"
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"val_loss": "5e9"} for row in rows)
    shutil.copy(second["shared"] / "results.json", second["branched"])
    (second["shared"] / "results.json").write_text("{")
    (second["comb"] / "results.json").unlink()
    (second["random"] / "metrics.csv").write_text("epoch,task\n0\n")
    shutil.rmtree(second["anti"])
    assert main(["report", str(folder), "--quiet"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no learning curves of ")]
    expected = {
        "branched": "it is not the run of this comparison",
        "shared": "results.json is damaged",
        "comb": "results.json does not exist",
        "random": "metrics.csv is damaged",
    }
    assert len(said) == len(expected)
    for method, reason in expected.items():
        message = f"no learning curves of {second[method].name}: "
        assert any(line.startswith(message) and reason in line for line in said)
    curves = (folder / "report.html").read_text(encoding="utf-8").partition('<section id="curves"')[2]
    curves = curves.partition("</section>")[0]
    assert "<circle" in curves
    assert "e9" not in curves


def test_controls_have_the_group_counts_of_the_planned_tree(comparison: Comparison) -> None:
    for seed in (0, 1):
        planned, *controls = (comparison.runs[method][seed] for method in ("branched", "random", "anti"))
        assert [r.groups for r in controls] == [planned.groups] * 2
        assert [r.parameters for r in controls] == [planned.parameters] * 2


def test_the_single_task_models_are_the_zero_of_delta_m(comparison: Comparison) -> None:
    single = rows(comparison)[0]
    assert single.delta_m.mean == pytest.approx(0.0, abs=1e-9)
    assert comparison.reference.settings["seeds"] == [0, 1]
    seconds = [[run["train_seconds"] for run in runs] for runs in comparison.reference.settings["runs"].values()]
    assert single.seconds == Spread.of([sum(per_task) for per_task in zip(*seconds, strict=True)])


def test_the_machines_and_versions_of_the_single_task_models_are_named(comparison: Comparison) -> None:
    settings = copy.deepcopy(comparison.reference.settings)
    settings["runs"]["depth"][1] |= {"hardware": "another machine", "versions": {"torch": "9.9"}}
    changed = replace(comparison, reference=replace(comparison.reference, settings=settings))
    assert "another machine" not in provenance(comparison)
    assert all(text in provenance(changed) for text in (" or another machine", " or 9.9"))


def test_differences_are_paired_by_seed(comparison: Comparison) -> None:
    spread = advantage(comparison, "branched", "shared")
    pairs = np.subtract(delta_ms(comparison, "branched"), delta_ms(comparison, "shared"))
    assert spread.mean == pytest.approx(pairs.mean())
    assert spread.error == pytest.approx(pairs.std(ddof=1) / math.sqrt(2))


def test_memory_counts_what_training_keeps(comparison: Comparison) -> None:
    memory = {row.method: row.memory for row in rows(comparison)}
    assert memory["branched"] == memory["random"]
    assert memory["branched"] > memory["shared"] > memory["decoders"] > 0


def test_the_same_command_trains_nothing_again(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = compared / "runs" / "versus" / "comparison.json"
    before = path.read_text()
    assert main(["compare", str(compared / "tiny.yaml"), *ARGUMENTS, "--grid=[1,3]"]) == 0
    printed = capsys.readouterr().out
    assert "epoch" not in printed
    assert "fit decoders" not in printed
    assert "Differences of Δm" in printed
    assert path.read_text() == before


def test_markdown_holds_every_method_and_the_command(compared: Path, comparison: Comparison) -> None:
    text = outcome(comparison).markdown()
    assert text == (compared / "runs" / "versus" / "comparison.md").read_text()
    assert text.count("branched, planned tree") == 3 + 6
    assert "--seeds=[0,1]" in text


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_formats_for_programs(
    compared: Path, comparison: Comparison, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(compared / "tiny.yaml"), *ARGUMENTS, "--grid=[1,3]", f"--format={kind}"]) == 0
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


def test_the_front_holds_what_no_method_beats() -> None:
    beaten = [(1.0, -2.0), (3.0, 4.0), (4.0, 3.0)]  # one of them by a method of the same cost
    assert front([(3.0, 4.0), (1.0, 2.0), (2.0, 4.0), *beaten]) == [(1.0, 2.0), (2.0, 4.0)]
    assert front([(1.0, 2.0), (1.0, 2.0)]) == [(1.0, 2.0)]


def test_verdicts() -> None:
    assert verdict(Spread(1.0, 0.1, 4)) == "ahead"
    assert verdict(Spread(-1.0, 0.1, 4)) == "behind"
    assert verdict(Spread(0.1, 0.4, 4)) == "within noise"
    assert verdict(Spread(0.0, 0.0, 2)) == "identical"
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


def test_a_run_and_a_comparison_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = write_config(tmp_path), tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(config, folder / "config.yaml")
    assert main(["compare", str(config), "--quiet", "--methods=[shared]"]) == 2
    assert f"{folder} holds a run, whose report.html" in capsys.readouterr().err
    (folder / "config.yaml").rename(folder / "comparison.json")
    assert main(["fit", str(config), "--quiet"]) == 2
    assert f"{folder} holds a comparison, whose report.html" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.json"]


def test_a_damaged_comparison_is_named(compared: Path, tmp_path: Path) -> None:
    content = json.loads((compared / "runs" / "versus" / "comparison.json").read_text())
    for change, expected in (({"format": 99}, "newer"), ({"runs": 3}, "damaged"), ({"config": {}}, "damaged")):
        path = tmp_path / "comparison.json"
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=expected):
            Comparison.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Comparison.load(path)


def test_a_run_that_fails_in_its_process_ends_the_comparison(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = compared / "runs" / "broken" / "decoders-x1-0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: other\n")
    arguments = ["--methods=[decoders]", "--seeds=[0]", "--quiet", "--name=broken", "--workers=2"]
    assert main(["compare", str(compared / "tiny.yaml"), *arguments]) == 2
    assert "choose another --name, or delete the directory" in capsys.readouterr().err


def test_workers_below_one_are_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(compared / "tiny.yaml"), "--quiet", "--workers=0"]) == 2
    assert "workers=0: give at least 1" in capsys.readouterr().err


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
