"""Two commands on one run: the second says so; a lock ends with its process, however that ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.run.lock import NAME, locked
from tiny_run import write_config

pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from branchtune.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_fit_is_refused_and_a_killed_owner_holds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = write_config(tmp_path), tmp_path / "runs" / "tiny"
    command = ["fit", str(config), "--method=shared", "--decoder_fit.steps=0", "--trainer.max_epochs=1", "--quiet"]
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    with holder(run) as process:
        try:
            assert main(command) == 2
            error = capsys.readouterr().err
            assert f"process {process.pid} on " in error
            assert "is working on this run" in error
            assert error.count("\n") == 1
            assert [path.name for path in run.iterdir()] == [NAME]
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert (run / NAME).exists()
    assert main(command) == 0
    assert not (run / NAME).exists()
    assert levels == [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]


def test_an_error_releases_it_and_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"), locked(tmp_path / "file"):
        pass
