"""`fit` with `trainer.devices=2` on a CPU: the numbers of one process with the joint batch."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from branchtune.cli.main import main
from branchtune.run.results import Results
from branchtune.shipping.files import ADAPTERS, DECODERS
from finished_run import continued, run_of
from tiny_run import write_config

TOGETHER = ["--trainer.devices=2", "--data.batch_size=1"]  # the fixture's runs have one process and a batch of two


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "branchtune", "fit", str(config), *TOGETHER, "--quiet", *arguments]


def fit(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config, *arguments), capture_output=True, text=True, timeout=500, check=False)


def epochs(run: Path) -> list[str]:
    """What metrics.csv has of the training so far."""
    path = run / "metrics.csv"
    rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else []
    return list(dict.fromkeys(row["epoch"] for row in rows))


def numbers(run: Path) -> dict[str, float]:
    metrics = Results.load(run / "results.json").metrics
    return {f"{task} {name}": value for task, values in metrics.items() for name, value in values.items()}


def same_weights(first: Path, second: Path) -> None:
    """Of the saved models, in float32: where gradients are about zero, Adam makes steps of what rounding leaves."""
    for file in (ADAPTERS, DECODERS):
        expected, found = (load_file(run / "model" / file) for run in (first, second))
        assert found.keys() == expected.keys()
        assert expected
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0.05 * float(value.abs().max()), msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "accumulated"), [("WeightedSum", 1), ("AdaTask", 1), ("AdaTask", 2)])
def test_two_processes_give_the_numbers_of_one(finished: Path, optimizer: str, accumulated: int) -> None:
    same = ["--method=shared", "--decoder_fit.steps=0", f"--optimizer=branchtune.{optimizer}"]
    alone = ["--trainer.max_epochs=2", f"--trainer.accumulate_grad_batches={accumulated}", *same]
    case = f"{optimizer}-{accumulated}"
    assert main(["fit", str(finished), f"--name=alone-{case}", *alone, "--quiet"]) == 0
    done = fit(finished, f"--name=together-{case}", *alone)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    expected, found = (numbers(run_of(finished, f"{kind}-{case}")) for kind in ("alone", "together"))
    assert found == pytest.approx(expected, rel=2e-3)
    same_weights(*(run_of(finished, f"{kind}-{case}") for kind in ("alone", "together")))
    run, image = run_of(finished, f"together-{case}"), finished.parent / "nyud" / "images" / "0000.jpg"
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert main(["predict", str(run), str(image), "-o", str(run / "out"), "--quiet"]) == 0
    first, second = ((run_of(finished, f"{k}-{case}") / "metrics.csv").read_text() for k in ("alone", "together"))
    assert len(first.splitlines()) == len(second.splitlines())


@pytest.mark.slow
def test_a_joint_batch_without_any_label_moves_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for name in ("0002", "0005", "0009"):  # of the four training images
        np.save(tmp_path / "nyud" / "depth" / f"{name}.npy", np.zeros((12, 16), np.float32))
    alone = ["--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"]
    alone += ["--method=shared", "--decoder_fit.steps=0", "--trainer.max_epochs=2"]
    assert main(["fit", str(config), "--name=alone", *alone, "--quiet"]) == 0
    done = fit(config, "--name=together", *alone)
    assert done.returncode == 0, done.stderr
    expected, found = (numbers(tmp_path / "runs" / name) for name in ("alone", "together"))
    assert found == pytest.approx(expected, rel=2e-3)


@pytest.mark.slow
def test_a_data_error_in_one_process_ends_all_with_its_message(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    image = tmp_path / "nyud" / "images" / "0005.jpg"
    image.write_bytes(image.read_bytes()[:200])
    done = fit(config, "--method=shared", "--decoder_fit.steps=0")
    assert done.returncode == 2
    assert f"{image}: cannot be decoded" in done.stderr
    assert not (tmp_path / "runs" / "tiny" / "results.json").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--backbone.levels=[blocks.99]", "blocks.99"),
        ("--trainer.devices=5", "4 training and 2 validation images for 5 processes: each process needs one of both"),
        ("--trainer.strategy=fsdp", "trainer.strategy is not yours to set: runs of several devices use DDP"),
    ],
)
def test_a_mistake_shows_before_processes_start(
    finished: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert main(["fit", str(finished), "--name=wrong", *TOGETHER, argument]) == 2
    assert message in capsys.readouterr().err
    assert not run_of(finished, "wrong").exists()


def test_other_commands_use_one_process(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["affinity", str(finished), "--name=two", *TOGETHER]) == 2
    assert "one process uses one device" in capsys.readouterr().err
    assert not run_of(finished, "two").exists()


@pytest.mark.slow
def test_an_interrupted_run_of_two_processes_goes_on(finished: Path) -> None:
    arguments = ["--name=resumed", "--method=shared", "--decoder_fit.steps=0"]
    assert fit(finished, *arguments).returncode == 0
    run = run_of(finished, "resumed")
    before = numbers(run)
    shutil.rmtree(run / "model")
    (run / "results.json").unlink()
    done = fit(finished, *arguments)
    assert done.returncode == 0, done.stderr
    assert "9 of 9" not in done.stdout  # no epoch is repeated
    assert numbers(run) == before
    assert Results.load(run / "results.json").hardware.startswith("2 x ")


@pytest.mark.slow
def test_after_one_process_is_killed_in_training_the_same_command_ends_with_the_numbers_of_an_unbroken_run(
    finished: Path,
) -> None:
    arguments = ["--method=shared", "--decoder_fit.steps=0", "--trainer.max_epochs=12"]
    assert fit(finished, "--name=unbroken", *arguments).returncode == 0
    run = run_of(finished, "killed")
    with subprocess.Popen(command(finished, "--name=killed", *arguments), stdout=subprocess.DEVNULL) as process:
        while len(epochs(run)) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert process.wait(timeout=300) != 0
    assert not (run / "results.json").exists()
    before = epochs(run)
    assert fit(finished, "--name=killed", *arguments).returncode == 0
    assert epochs(run) == epochs(run_of(finished, "unbroken"))
    assert epochs(run)[: len(before)] == before
    assert numbers(run) == numbers(run_of(finished, "unbroken"))


@pytest.mark.parametrize("before", [2, 1])
def test_a_training_is_not_continued_with_other_processes(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    run, again = continued(finished, f"others-{before}")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["processes"] = before
    (run / "manifest.json").write_text(json.dumps(manifest))
    if before == 1:
        monkeypatch.setattr("branchtune.run.manifest.rank_and_count", lambda: (0, 2))
    assert main(again) == 2
    assert f"number of processes: {before} so far, {3 - before} now" in capsys.readouterr().err
    assert json.loads((run / "manifest.json").read_text()) == manifest
