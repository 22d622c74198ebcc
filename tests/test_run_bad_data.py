"""Data that turn out to be bad in the middle of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.run.loaders import check_sizes
from tiny_run import write_config


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


def test_a_split_of_which_nothing_is_left() -> None:
    with pytest.raises(UserError, match="there is no validation image: give at least 1"):
        check_sizes({"train": 4, "val": 0}, compares=False, processes=1)
