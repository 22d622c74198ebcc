"""Killed with -9 in every phase and resumed, a run ends with the numbers of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from branchtune.run.results import Results
from tiny_run import write_config

pytestmark = pytest.mark.slow

ARGUMENTS = ["--quiet", "--trainer.max_epochs=4", "--decoder_fit.steps=40", "--affinity.samples=4"]


def start(config: Path, name: str) -> subprocess.Popen[bytes]:
    code = "import sys; from branchtune.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "fit", str(config), f"--name={name}", *ARGUMENTS]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], delay: float) -> bool:
    """Kill the process group with -9 a moment after `reached()`; False when it ended before."""
    while process.poll() is None:
        if reached():
            time.sleep(delay)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return True
        time.sleep(0.001)
    return False


def epochs(run: Path) -> int:
    """Completed epochs by metrics.csv."""
    table = run / "metrics.csv"
    return (len(table.read_text().splitlines()) - 1) // 4 if table.exists() else 0


def moments(run: Path) -> list[tuple[str, Callable[[], bool], float]]:
    checkpoints = run / "checkpoints"
    return [
        ("start", lambda: (run / "config.yaml").exists(), 0.0),
        ("decoders", lambda: (run / "manifest.json").exists(), 0.3),
        ("affinity", lambda: (run / "decoders.safetensors").exists(), 0.05),
        ("tree", lambda: (run / "affinity.json").exists(), 0.0),
        ("training starts", lambda: (run / "tree.json").exists(), 0.2),
        ("saving", lambda: any(checkpoints.glob("*.partial")) if checkpoints.exists() else False, 0.0),
        ("first epoch saved", lambda: (checkpoints / "last.ckpt").exists(), 0.0),
        ("third epoch", lambda: epochs(run) >= 3, 0.0),
        ("last epoch", lambda: epochs(run) >= 4, 0.0),
        ("model", lambda: (run / "model").exists() or any(run.glob(".model*")), 0.0),
    ]


def test_ten_kills_do_not_change_the_numbers(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    whole = start(config, "whole")
    assert whole.wait() == 0
    again = start(config, "again")
    assert again.wait() == 0
    run = tmp_path / "runs" / "killed"
    killed = []
    for name, reached, delay in moments(run):
        if kill_when(start(config, "killed"), reached, delay):
            killed.append(name)
    last = start(config, "killed")
    assert last.wait() == 0
    assert len(killed) == 10, killed
    results = {
        name: Results.load(tmp_path / "runs" / name / "results.json").metrics for name in ("whole", "again", "killed")
    }
    assert results["whole"] == results["again"]
    assert results["whole"] == results["killed"]
    for table in ("metrics.csv", "conflict.csv"):
        assert len({(tmp_path / "runs" / name / table).read_text() for name in results}) == 1
