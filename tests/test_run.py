"""`fit` through the command line, on a run that takes seconds."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import branchtune as bt
from branchtune import atomic
from branchtune.cli.main import main
from branchtune.config import RunConfig
from branchtune.run.manifest import tree_sha256
from branchtune.run.results import Results
from branchtune.settings import Settings
from branchtune.training.checkpoint_io import read_checkpoint
from tiny_run import write_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file whose run is finished, beside `runs/tiny`."""
    path = write_config(tmp_path_factory.mktemp("run"))
    assert main(["fit", str(path), "--quiet"]) == 0
    return path


def run_of(config: Path, name: str = "tiny") -> Path:
    return config.parent / "runs" / name


def test_the_run_directory_holds_everything(finished: Path) -> None:
    run = run_of(finished)
    for name in ("config.yaml", "affinity.json", "tree.json", "manifest.json", "metrics.csv", "results.json"):
        assert (run / name).is_file(), name
    assert (run / "model" / "adapter_model.safetensors").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not list(run.rglob("*.partial"))


def test_metrics_csv_has_one_row_per_epoch_and_task(finished: Path) -> None:
    lines = (run_of(finished) / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,task,train_loss,val_loss")
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [str(epoch), task] for epoch in range(3) for task in ("semseg", "depth", "normals", "edge")
    ]


def test_results_count_what_trains_by_owner(finished: Path) -> None:
    results = Results.load(run_of(finished) / "results.json")
    assert results.parameters["adapters"] > 0
    assert results.parameters["backbone"] == results.parameters["extras"] == 0
    assert results.groups == [1, 1, 2, 4]
    assert results.macs["backbone"] > results.macs["backbone_plain"]


def test_a_finished_run_says_so_and_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run_of(finished) / "results.json").stat().st_mtime_ns
    assert main(["fit", str(finished), "--quiet"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (run_of(finished) / "results.json").stat().st_mtime_ns == before


def test_another_configuration_is_refused_and_the_difference_named(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(finished), "--adapter.r=3"]) == 2
    error = capsys.readouterr().err
    assert "adapter.init_args.r=2" in error
    assert "adapter.init_args.r=3" in error
    assert error.count("\n") == 1


def test_config_yaml_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "runs"
    assert main(["fit", str(run_of(finished) / "config.yaml"), f"--output={again}", "--quiet"]) == 0
    first, second = (Results.load(folder / "results.json") for folder in (run_of(finished), again / "tiny"))
    assert first.metrics == second.metrics


def test_the_saved_model_gives_the_evaluated_metrics(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run_of(finished)), "--quiet"]) == 0
    rmse = Results.load(run_of(finished) / "results.json").metrics["depth"]["rmse"]
    assert f"rmse {rmse:.4f}" in capsys.readouterr().out


def test_predict_writes_arrays_and_pictures_at_the_images_size(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = finished.parent / "nyud" / "images"
    assert main(["predict", str(run_of(finished)), str(images), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 6 * 4 * 2
    assert "0000.depth.npy" in names
    assert "0000.normals.png" in names


def test_predict_names_damaged_images_and_goes_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.jpg").write_bytes((finished.parent / "nyud" / "images" / "0000.jpg").read_bytes())
    (images / "bad.jpg").write_text("not an image")
    assert main(["predict", str(run_of(finished)), str(images), "-o", str(tmp_path / "out"), "--tasks=[depth]"]) == 0
    assert "bad.jpg" in capsys.readouterr().out
    (images / "good.jpg").unlink()
    assert main(["predict", str(run_of(finished)), str(images), "-o", str(tmp_path / "out")]) == 2


def test_plan_reads_the_runs_affinity(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tree.json"
    assert main(["plan", str(run_of(finished)), "--groups=[1,2,2,3]", f"--out={out}"]) == 0
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("total"))
    assert total.split()[1] == "19,712"  # of the run's adapter, r=2: 1792 for each of the 11 blocks of the nodes
    assert bt.TaskTree.from_json(json.loads(out.read_text())).group_counts == (1, 2, 2, 3)


@pytest.mark.parametrize("method", ["shared", "separate", "decoders", "full"])
def test_every_method_trains(finished: Path, method: str) -> None:
    name = f"tiny-{method}"
    assert (
        main(["fit", str(finished), f"--method={method}", f"--name={name}", "--trainer.max_epochs=1", "--quiet"]) == 0
    )
    results = Results.load(run_of(finished, name) / "results.json")
    assert (results.parameters["adapters"] > 0) == (method in ("shared", "separate"))
    assert (results.parameters["backbone"] > 0) == (method == "full")


def test_a_tree_by_hand_and_adatask_with_clipping_and_accumulation(finished: Path) -> None:
    arguments = [
        "--optimizer=branchtune.AdaTask",
        "--trainer.gradient_clip_val=1.0",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.max_epochs=1",
        "--tree.groups=null",
        "--tree.levels=[[[depth,edge,normals,semseg]],[[depth,edge,normals,semseg]],[[depth,edge],[normals,semseg]],[[depth,edge],[normals],[semseg]]]",
    ]
    assert main(["fit", str(finished), "--name=adatask", *arguments, "--quiet"]) == 0
    assert Results.load(run_of(finished, "adatask") / "results.json").groups == [1, 1, 2, 3]


def test_fast_dev_run_leaves_nothing_behind(finished: Path) -> None:
    assert main(["fit", str(finished), "--name=quick", "--trainer.fast_dev_run=true", "--quiet"]) == 0
    assert not run_of(finished, "quick").exists()


def test_reference_is_stored_with_its_settings_and_divides_delta_m(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "reference.json"
    quick = ["--trainer.max_epochs=1", "--quiet"]
    assert main(["reference", str(finished), f"--out={out}", "--id=tiny reference", *quick]) == 0
    content = json.loads(out.read_text())
    assert sorted(content["metrics"]) == ["depth", "edge", "normals", "semseg"]
    assert "trainer:" in content["settings"]["config"]
    assert main(["fit", str(finished), f"--reference={out}", "--name=compared", *quick]) == 0
    results = Results.load(run_of(finished, "compared") / "results.json")
    assert results.reference == "tiny reference"
    assert results.delta_m == pytest.approx(sum(results.gains.values()) / 4)


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
        assert main(command) == 2
    captured = capsys.readouterr()
    assert "task 'depth' became nan at step 3" in captured.err
    assert "train nan-later: stopped after 4 of 9" in captured.out
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert main(command) == 0
    assert same_metrics(finished, run)


def continued(finished: Path, name: str, *without: str) -> tuple[Path, list[str]]:
    """A copy of the finished run that lacks its end and the files named, and the command that continues it."""
    run = run_of(finished, name)
    shutil.copytree(run_of(finished), run)
    known = run / "config.yaml"
    known.write_text(known.read_text().replace("name: tiny\n", f"name: {name}\n", 1))
    shutil.rmtree(run / "model")
    for file in ("results.json", *without):
        (run / file).unlink()
    return run, ["fit", str(finished), f"--name={name}", "--quiet"]


def same_metrics(finished: Path, run: Path) -> bool:
    return Results.load(run / "results.json").metrics == Results.load(run_of(finished) / "results.json").metrics


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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_label_during_training_names_file_and_value(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    label = tmp_path / "nyud" / "segmentation" / "0005.png"
    Image.fromarray(np.full((12, 16), 77, np.uint8)).save(label)
    arguments = ["--method=shared", "--decoder_fit.steps=0", f"--data.workers={workers}", "--quiet"]
    assert main(["fit", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"{label}: value 77 is above the task's 39 classes" in error
    assert error.startswith("branchtune: ")
    assert error.count("\n") == 1


def test_a_depth_out_of_range_names_file_and_its_own_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    label = tmp_path / "nyud" / "depth" / "0005.npy"
    np.save(label, np.full((12, 16), 2500.0, np.float32))
    arguments = ["--method=shared", "--decoder_fit.steps=0", "--data.augmentation.scales=[2.0]", "--quiet"]
    assert main(["fit", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"{label}: value 2500, expected metres below 1000" in error
    assert error.count("\n") == 1


def test_an_image_that_does_not_decode_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    image = tmp_path / "nyud" / "images" / "0005.jpg"
    image.write_bytes(image.read_bytes()[:200])
    assert main(["fit", str(config), "--method=shared", "--decoder_fit.steps=0", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"{image}: cannot be decoded" in error
    assert error.count("\n") == 1


def test_a_mistake_in_the_configuration_does_not_take_the_runs_name(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(finished), "--name=corrected", "--method=decoders", "--decoder_fit.steps=0", "--quiet"]
    assert main([*command, "--backbone.levels=[blocks.99]"]) == 2
    assert not run_of(finished, "corrected").exists()
    assert main([*command, "--trainer.max_epochs=1"]) == 0


def test_the_manifest_tells_tree_parameters_and_hardware(finished: Path) -> None:
    content = json.loads((run_of(finished) / "manifest.json").read_text())
    results = Results.load(run_of(finished) / "results.json")
    assert content["parameters"] == results.parameters
    assert content["tree_sha256"] == tree_sha256(bt.TaskTree.from_json(results.tree))
    assert "CPU" in content["hardware"]
    assert {"torch", "timm", "lightning", "branchtune"} <= set(content["versions"])


def test_affinity_stops_before_training_needs_no_tree_and_fit_continues(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(finished), "--name=measured", "--tree.groups=null", "--quiet"]
    assert main(["affinity", *arguments]) == 0
    assert "of the passes of the training" in capsys.readouterr().out
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


def test_config_yaml_is_the_whole_configuration(finished: Path) -> None:
    content = yaml.safe_load((run_of(finished) / "config.yaml").read_text())
    assert content["reference"] is None
    assert content["tree"] == {"groups": [1, 1, 2, 4], "budget": None, "budget_params": None, "levels": None}
    assert set(content) == set(RunConfig.__dataclass_fields__)


def test_images_whose_results_would_overwrite_each_other(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert main(["predict", str(run_of(finished)), str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "a.jpg and a.png would give files of one name" in capsys.readouterr().err


def test_settings_survive_their_own_text(finished: Path, tmp_path: Path) -> None:
    settings = Settings.load(finished, ["--adapter.r=5"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(settings.text())
    assert Settings.load(copy).flat() == settings.flat()
    assert settings.config.adapter == bt.LoRA(r=5)
