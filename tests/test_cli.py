"""The command line's help and its errors: one line, exit status 2, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from branchtune.cli.main import COMMANDS, main
from tiny_run import write_config


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", ["fit", "affinity", "reference", "plan", "evaluate", "predict", "demo"])
def test_the_help_of_a_command_needs_no_torch(command: str) -> None:
    code = (
        "import sys\nfrom branchtune.cli.main import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fot"], "did you mean 'fit'"),
        (["fit"], "needs a configuration file"),
        (["fit", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "{config}", "--adaptor.r=3"], "did you mean 'adapter'"),
        (["fit", "{config}", "--data.batchsize=3"], "did you mean 'data.batch_size'"),
        (["fit", "{config}", "--data.batch_size=many"], "data.batch_size"),
        (["fit", "{config}", "--adapter.rank=3"], "'rank'"),
        (
            ["fit", "{config}", "--backbone.name=swin_tinny_patch4_window7_224"],
            "did you mean 'swin_tiny_patch4_window7_224'",
        ),
        (["fit", "{config}", "--backbone.levels=[blocks.99]"], "blocks.99"),
        (["fit", "{config}", "--tree.groups=[1,2]"], "levels"),
        (["fit", "{config}", "--tree.groups=null", "--tree.budget=0.5"], "budget"),
        (["fit", "{config}", "--data.root=null"], "data.root"),
        (["fit", "{config}", "--data.root=nowhere"], "nowhere"),
        (["fit", "{config}", "--data.image_size=[30,30]"], "30x30"),
        (["fit", "{config}", "--reference=nowhere.json"], "nowhere.json"),
        (["fit", "{config}", "--trainer.max_epoch=3"], "max_epoch"),
        (["fit", "{config}", "--loggers=[CSVLoger]"], "did you mean 'CSVLogger'"),
        (["fit", "{config}", "--extras=[norm]"], "did you mean 'norms'"),
        (["evaluate", "nowhere"], "nowhere"),
        (["predict", "nowhere", "nowhere"], "nowhere"),
        (["plan", "nowhere", "--budget=2"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path))
    status = main([argument.replace("{config}", config) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.partial"))
