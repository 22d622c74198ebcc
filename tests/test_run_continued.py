"""Runs that were interrupted, damaged or changed before they went on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import branchtune as bt
from branchtune import atomic
from branchtune.cli.main import main
from branchtune.run.results import Results
from branchtune.settings import Settings
from branchtune.training.checkpoint_io import read_checkpoint
from finished_run import continued, run_of, same_metrics


def test_a_nan_loss_names_task_step_and_samples(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchtune.tasks.depth import Depth

    def broken(self: Depth, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.sum() * float("nan")

    monkeypatch.setattr(Depth, "loss", broken)
    assert main(["fit", str(finished), "--name=nan", "--decoder_fit.steps=0", "--method=shared", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "'depth'" in error
    assert "step 0" in error
    assert "000" in error


def test_a_nan_in_a_later_epoch_leaves_the_last_good_checkpoint_and_the_run_resumes(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchtune.tasks.depth import Depth

    run, command = continued(finished, "nan-later", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    loss, calls = Depth.loss, []

    def breaks(self: Depth, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(output.requires_grad)
        return loss(self, output, target) * (float("nan") if sum(calls) == 4 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Depth, "loss", breaks)
        assert main([*command, "--conflict_every=0"]) == 2
    captured = capsys.readouterr()
    assert "task 'depth' became nan at step 3" in captured.err
    assert "train nan-later: stopped after 4 of 9" in captured.out
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert main(command) == 0
    assert same_metrics(finished, run)


def test_a_run_goes_on_with_recomputed_blocks_to_the_same_numbers_from_less_memory(finished: Path) -> None:
    run, command = continued(finished, "recomputed", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    assert main([*command, "--checkpoint_levels=[2,3]"]) == 0
    assert same_metrics(finished, run)
    memory = [Results.load(folder / "results.json").train_memory for folder in (run, run_of(finished))]
    assert None not in memory
    assert memory[0] < memory[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.yaml", b"\xff", "config.yaml is damaged"),
        ("manifest.json", b"{", "manifest.json is damaged"),
        ("decoders.safetensors", b"damaged", "decoders.safetensors is damaged"),
        ("tree.json", b"{}", "tree.json"),
        ("tree.json", b"[", "tree.json is damaged"),
        ("checkpoints/last.ckpt", b"damaged", "last.ckpt is damaged"),
        ("results.json", b"{}", "results.json is damaged"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    finished: Path, file: str, content: bytes, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, command = continued(finished, "damaged")
    try:
        (run / file).write_bytes(content)
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    finally:
        shutil.rmtree(run)


def test_a_damaged_affinity_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, command = continued(finished, "affinity", "tree.json")
    (run / "affinity.json").write_text("{}")
    assert main(command) == 2
    assert "affinity.json" in capsys.readouterr().err


def test_a_checkpoint_of_another_tree_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, command = continued(finished, "another-tree")
    tree = bt.TaskTree.shared(["semseg", "depth", "normals", "edge"], 4)
    (run / "tree.json").write_text(json.dumps(tree.to_json()))
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "the checkpoint is of another tree" in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_another_backbone_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, command = continued(finished, "another-backbone")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["branchtune"]["backbone"] = "resnet18"
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    assert main(command) == 2
    assert "is of backbone 'resnet18', the model has 'test_vit'" in capsys.readouterr().err


def test_weights_that_changed_since_the_run_began_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, command = continued(finished, "other-weights")
    content = json.loads((run / "manifest.json").read_text())
    content["backbone"]["checkpoint_sha256"] = "0123456789abcdef"
    (run / "manifest.json").write_text(json.dumps(content))
    assert main(command) == 2
    assert "not those that this run began with (SHA-256 0123456789ab" in capsys.readouterr().err


def test_a_full_disk_while_saving_is_one_line_and_the_run_resumes(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, command = continued(finished, "full-disk", "checkpoints/last.ckpt", "checkpoints/best.ckpt")

    def fill(name: str, left: int = 0) -> None:
        """The disk is full once `left` files of this name have been written."""
        before, written = atomic._sync, []

        def sync(path: Path) -> None:
            written.extend([path] if name in str(path) else [])
            if len(written) > left:
                raise OSError(errno.ENOSPC, "No space left on device")
            before(path)

        monkeypatch.setattr(atomic, "_sync", sync)

    for name, left in (("last.ckpt", 1), ("metrics.csv", 0), ("adapter_config.json", 0), ("results.json", 0)):
        fill(name, left)
        assert main(command) == 2
        monkeypatch.undo()
        error = capsys.readouterr().err
        assert "cannot write" in error
        assert "No space left on device; free some space there" in error
        assert error.count("\n") == 1
        assert not list(run.rglob("*.partial"))
        assert not (run / "results.json").exists()
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert main(command) == 0
    assert same_metrics(finished, run)
    assert (run / "metrics.csv").read_text() == (run_of(finished) / "metrics.csv").read_text()


def test_ctrl_c_during_training_is_status_130_and_the_run_resumes(
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    run, command = continued(finished, "interrupted", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    steps = []

    def interrupt(*args: Any) -> None:
        steps.append(args)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("branchtune.training.module.check_finite", interrupt)
        assert main(command) == 130
    assert "interrupted; the same command continues the run" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not (run / "results.json").exists()
    assert main(command) == 0
    assert same_metrics(finished, run)
    assert (run / "conflict.csv").read_text() == (run_of(finished) / "conflict.csv").read_text()


def test_affinity_stops_before_training_needs_no_tree_and_fit_continues(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(finished), "--name=measured", "--tree.groups=null", "--quiet"]
    assert main(["affinity", *arguments]) == 0
    assert "as many passes as the training" in capsys.readouterr().out
    assert sorted(path.name for path in run_of(finished, "measured").iterdir()) == [
        "affinity.json",
        "config.yaml",
        "decoders.safetensors",
        "manifest.json",
    ]
    assert main(["evaluate", str(run_of(finished, "measured"))]) == 2
    assert "measured is not finished: `branchtune fit" in capsys.readouterr().err
    assert main(["fit", *arguments]) == 2
    assert "no tree is chosen" in capsys.readouterr().err
    measured = run_of(finished, "measured")
    kept = {name: (measured / name).read_bytes() for name in ("affinity.json", "decoders.safetensors")}
    assert main(["plan", str(measured), "--groups=[1,2,2,3]"]) == 0
    assert main(["fit", *arguments, "--tree.groups=[1,2,2,3]", "--trainer.max_epochs=2"]) == 0
    assert Results.load(measured / "results.json").groups == [1, 2, 2, 3]
    assert len((measured / "metrics.csv").read_text().splitlines()) == 1 + 2 * 4
    assert kept == {name: (measured / name).read_bytes() for name in kept}
    written = Settings.load(measured / "config.yaml").config
    assert (written.tree.groups, written.trainer["max_epochs"]) == ([1, 2, 2, 3], 2)


def test_what_a_phase_has_used_is_fixed_and_the_key_is_named(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, command = continued(finished, "phases")
    before = (run / "config.yaml").read_text()
    for argument, expected in (
        ("--tree.groups=null", "tree.groups=[1, 1, 2, 4], this one has tree.groups=None"),
        ("--data.augmentation.flip=0.1", "data.augmentation.flip=0.5, this one has data.augmentation.flip=0.1"),
        ("--trainer.max_epochs=5", "trainer.max_epochs=3, this one has trainer.max_epochs=5"),
        ("--method=shared", "method='branched', this one has method='shared'"),
    ):
        assert main([*command, argument]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    assert (run / "config.yaml").read_text() == before
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    assert main([*command, "--tree.groups=[1,1,1,1]"]) == 2  # planned already
    assert "tree.groups=[1, 1, 2, 4]" in capsys.readouterr().err
    assert main([*command, "--trainer.max_epochs=1"]) == 0
    assert Settings.load(run / "config.yaml").config.trainer["max_epochs"] == 1
