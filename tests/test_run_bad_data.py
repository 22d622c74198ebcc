"""Data that turn out to be bad in the middle of a run, or before it where bad samples are skipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bad_nyud import corrupt_image, list_twice, other_size, out_of_range, unlink
from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.run.loaders import check_sizes
from folder_tree import write_folder_tree
from nyud_tree import SPLITS
from tiny_run import write_config

QUICK = ["--quiet", "--method=decoders", "--tree.groups=null", "--trainer.max_epochs=1"]
DEPTH = "depth: {class_path: branchtune.Depth, init_args: {name: depth}}"
SALIENCY = "mask: {class_path: branchtune.Saliency, init_args: {name: mask}}"


def written(tmp_path: Path, name: str) -> Any:
    return json.loads((tmp_path / "runs" / "tiny" / name).read_text())


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
    assert f"{label}: value 2500, expected metres above 0 and below 1000" in error
    assert error.count("\n") == 1


def test_an_image_that_does_not_decode_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    image = tmp_path / "nyud" / "images" / "0005.jpg"
    image.write_bytes(image.read_bytes()[:200])
    assert main(["fit", str(config), "--method=shared", "--decoder_fit.steps=0", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"{image}: cannot be decoded" in error
    assert error.count("\n") == 1


def test_a_split_of_which_nothing_is_left() -> None:
    with pytest.raises(UserError, match="there is no validation image: give at least 1"):
        check_sizes({"train": 4, "val": 0}, compares=False, processes=1)


@pytest.mark.parametrize(
    ("spoil", "left", "skipped"),
    [
        (unlink, 1, "1 image (missing file 1)"),
        (corrupt_image, 1, "1 image (bad content 1)"),
        (other_size, 1, "1 image (bad content 1)"),
        (out_of_range, 1, "1 image (bad content 1)"),
        (list_twice, 2, "1 repeated id (listed twice 1)"),
    ],
)
def test_a_bad_validation_sample_is_skipped_and_counted(
    tmp_path: Path, spoil: Callable[[Path, str], None], left: int, skipped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    spoil(tmp_path / "nyud", "val")
    assert main(["fit", str(config), "--data.on_bad=skip", *QUICK]) == 0
    assert f"val: skipped {skipped}: " in capsys.readouterr().out
    report = written(tmp_path, "manifest.json")["data"]
    assert (report["val"]["samples"], report["val"]["skipped"]) == (left, 2 - left)
    assert report["train"] == {"samples": 4, "skipped": 0, "problems": []}


def unlink_depth(root: Path, id_: str) -> None:
    (root / "depth" / f"{id_}.npy").unlink()


def damage(root: Path, id_: str) -> None:
    (root / "images" / f"{id_}.jpg").write_bytes(b"\xff\xd8 no image")


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
@pytest.mark.parametrize("spoil", [unlink_depth, damage])
def test_what_a_limit_leaves_out_may_be_bad(
    tmp_path: Path, spoil: Callable[[Path, str], None], on_bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    spoil(tmp_path / "nyud", SPLITS["train"][3])
    assert main(["fit", str(config), "--data.train_size=2", f"--data.on_bad={on_bad}", *QUICK]) == 0
    assert "skipped" not in capsys.readouterr().out
    assert written(tmp_path, "manifest.json")["data"]["train"] == {"samples": 2, "skipped": 0, "problems": []}


@pytest.mark.parametrize("spoil", [unlink_depth, damage])
def test_a_limit_is_filled_with_samples_that_can_be_used(
    tmp_path: Path, spoil: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    spoil(tmp_path / "nyud", SPLITS["train"][0])
    assert main(["fit", str(config), "--data.train_size=2", "--data.on_bad=skip", *QUICK]) == 0
    captured = capsys.readouterr()
    assert "train: skipped 1 image (" in captured.out
    assert "prepare train images: 2 of 2" in captured.out
    report = written(tmp_path, "manifest.json")["data"]["train"]
    assert (report["samples"], report["skipped"]) == (2, 1)


def test_a_limit_above_what_can_be_used_takes_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    unlink_depth(tmp_path / "nyud", SPLITS["train"][0])
    damage(tmp_path / "nyud", SPLITS["train"][3])
    assert main(["fit", str(config), "--data.train_size=3", "--data.on_bad=skip", *QUICK]) == 0
    captured = capsys.readouterr()
    assert "train: skipped 2 images (missing file 1, bad content 1)" in captured.out
    assert "prepare train images: 3 of 3" in captured.out
    assert written(tmp_path, "manifest.json")["data"]["train"]["samples"] == 2


def test_an_id_before_the_limit_that_is_bad_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    for id_ in (SPLITS["train"][1], SPLITS["train"][3]):
        unlink_depth(tmp_path / "nyud", id_)
    assert main(["fit", str(config), "--data.train_size=2", *QUICK]) == 2
    error = capsys.readouterr().err
    assert f"1 file of split 'train' is missing (depth/{SPLITS['train'][1]}.npy)" in error


def test_a_bad_validation_sample_is_named_where_it_is_not_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    corrupt_image(tmp_path / "nyud", "val")
    assert main(["fit", str(config), *QUICK]) == 2
    error = capsys.readouterr().err
    assert f"{SPLITS['val'][-1]}.jpg: cannot be decoded" in error
    assert error.count("\n") == 1


def folder_run(tmp_path: Path, declared: str, *tasks: str) -> tuple[Path, list[str]]:
    """A folder that declares these labels, and the command that trains the tasks on it."""
    root = write_folder_tree(tmp_path / "own")
    (root / "dataset.yaml").write_text(f"tasks: {declared}")
    arguments = ["--data.kind=folder", f"--data.root={root}", f"--tasks={{{', '.join(tasks)}}}", "--data.batch_size=4"]
    return root, ["fit", str(write_config(tmp_path)), *arguments, *QUICK]


def test_a_partial_label_trains_on_the_samples_that_have_it(tmp_path: Path) -> None:
    declared = "{depth: {kind: depth, units: mm}, mask: {kind: values, range: [0, 1], partial: true}}"
    root, fit = folder_run(tmp_path, declared, DEPTH, SALIENCY)
    (root / "mask").mkdir()
    for id_ in ("a", "c", "e"):  # two of four in train, one of two in val
        np.save(root / "mask" / f"{id_}.npy", np.eye(12, 16))
    assert main(fit) == 0
    metrics = written(tmp_path, "results.json")["metrics"]
    assert 0 <= metrics["mask"]["max_iou"] <= 1
    assert metrics["depth"]["rmse"] > 0
    report = written(tmp_path, "manifest.json")["data"]
    assert (report["train"]["samples"], report["val"]["samples"]) == (4, 2)


def test_a_value_out_of_the_declared_range_is_named_refused_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, fit = folder_run(tmp_path, "{depth: {kind: depth, units: mm, range: [0.4, 9.5]}}", DEPTH)
    Image.fromarray(np.full((12, 16), 9600, np.uint16)).save(root / "depth" / "d.png")
    message = f"{root / 'depth' / 'd.png'}: value 9.6 at row 0, column 0 is outside the declared 0.4 to 9.5 metres"
    assert main(["check-data", str(root), "--quiet"]) == 2
    assert message in " ".join(capsys.readouterr().out.split())
    assert main(fit) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert main([*fit, "--data.on_bad=skip", "--name=skipping"]) == 0
    assert f"train: skipped 1 image (bad content 1): {message}" in " ".join(capsys.readouterr().out.split())
