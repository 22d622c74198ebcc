"""`predict`: what its files hold, and folders, names and images that go wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from branchtune.cli.main import main
from branchtune.run.prediction_folder import PredictionFolder
from finished_run import run_of
from served_model import encoded, pixels, png_header

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(pixels(40, 60)))
    return folder


def call(finished: Path, images: Path, *arguments: str) -> int:
    return main(
        ["predict", str(run_of(finished)), str(images), "--quiet", "-o", str(images.parent / "out"), *arguments]
    )


def test_arrays_hold_predictions(finished: Path, images: Path) -> None:
    assert call(finished, images) == 0
    found = {name: np.load(images.parent / "out" / f"a.{name}.npy") for name in ("semseg", "depth", "normals", "edge")}
    assert {name: (str(array.dtype), array.shape) for name, array in found.items()} == {
        "semseg": ("uint8", (40, 60)),
        "depth": ("float32", (40, 60)),
        "normals": ("float32", (3, 40, 60)),
        "edge": ("float32", (40, 60)),
    }
    assert found["semseg"].max() < 39
    assert 0 <= found["edge"].min() < found["edge"].max() <= 1
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=0), 1, atol=1e-5)


def test_scores_are_written_where_asked_for(
    finished: Path, images: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = images.parent / "out"
    assert call(finished, images, "--tasks=[depth]", "--scores") == 2
    assert "--scores: none of depth predicts a map of classes" in capsys.readouterr().err
    assert not out.exists()
    assert call(finished, images, "--tasks=[semseg,depth]") == 0
    (images / "large.png").write_bytes(encoded(pixels(80, 60)))
    monkeypatch.setattr("branchtune.run.array_files.MOST_SCORES", 4 * 39 * 41 * 60)
    assert call(finished, images, "--tasks=[semseg,depth]", "--scores") == 0
    printed = capsys.readouterr().out
    assert "wrote 1 images" in printed
    assert "large.png: the scores of semseg would take 0.0 GB (39 classes, 80 x 60 pixels" in printed
    scores = np.load(out / "a.semseg.scores.npy")
    assert (str(scores.dtype), scores.shape) == ("float32", (39, 40, 60))
    np.testing.assert_array_equal(scores.argmax(0), np.load(out / "a.semseg.npy"))
    assert [path.name for path in out.glob("*scores*")] == ["a.semseg.scores.npy"]
    (images / "a.png").write_bytes(encoded(pixels(40, 60, seed=1)))
    assert call(finished, images, "--tasks=[depth]") == 0
    assert not list(out.glob("*.semseg.*"))  # of another image of that name


def test_folders_that_cannot_be_written_to(
    finished: Path, images: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = images.parent / "out"
    out.write_text("mine")
    assert call(finished, images) == 2
    assert f"{out} is a file, and predictions go into a folder: choose another folder with --out" in (
        capsys.readouterr().err
    )
    assert out.read_text() == "mine"
    out.unlink()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != out and may(path, mode))  # root may always write
    assert call(finished, images) == 2
    assert f"cannot write to {out}: it is read-only for you, choose another folder with --out" in (
        capsys.readouterr().err
    )
    assert call(finished, images, "-o", str(images / "a.png" / "out")) == 2
    assert "Not a directory, choose another folder with --out" in capsys.readouterr().err


def test_a_run_without_its_model_is_named_before_anything_is_written(
    finished: Path, images: Path, capsys: Printed
) -> None:
    run, out = images.parent / "run", images.parent / "out"
    shutil.copytree(run_of(finished), run)
    shutil.rmtree(run / "model")
    for command in (
        ["predict", str(run), str(images), "-o", str(out)],
        ["evaluate", str(run)],
        ["remove-task", str(run), "edge", "--name=less"],
    ):
        assert main([*command, "--quiet"]) == 2
        message = f"{run} has no model ({run / 'model'} is missing): copy the whole run, or train it again"
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in images.parent.iterdir()) == ["images", "run"]


def test_folders_without_images_and_of_another_version(finished: Path, images: Path, capsys: Printed) -> None:
    (images / "a.png").rename(images / "a.txt")
    assert call(finished, images) == 2
    assert f"{images} holds no image (.jpg, .jpeg" in capsys.readouterr().err
    (images / "a.txt").rename(images / "a.png")
    out = images.parent / "out"
    out.mkdir()
    (out / "predictions.json").write_text(json.dumps({"format": 1, "model": {}, "images": {}}))
    assert call(finished, images) == 2
    assert "predictions.json is of another version of branchtune" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": {"../precious": ["x", 0, 0]}},
        {"images": [["a", 0, 0]]},
        {"files": {"../precious": ["depth.npy"]}},
        {"files": {"a": ["depth.npy", "../precious.depth.npy"]}},
        {"files": {"a": {"depth.npy": 1}}},
        {"files": None},
        {"sheets": {"a/b": ["beside", "depth"]}},
        {"model": "other"},
    ],
)
def test_a_damaged_record_deletes_nothing(
    finished: Path, images: Path, capsys: Printed, wrong: dict[str, object]
) -> None:
    precious = images.parent / "precious.depth.npy"
    precious.touch()
    out = images.parent / "out"
    out.mkdir()
    record = {"format": 3, "model": {"x": "y"}, "images": {}, "files": {}, "sheets": {}, **wrong}
    (out / "predictions.json").write_text(json.dumps(record))
    assert call(finished, images, "--overwrite") == 2
    assert "predictions.json is damaged" in capsys.readouterr().err
    assert precious.exists()


def test_files_of_somebody_else_are_no_predictions(finished: Path, images: Path, capsys: Printed) -> None:
    out = images.parent / "out"
    out.mkdir()
    truth = {"a.depth.npy", "a.depth.png"}
    for name in truth:
        (out / name).write_text("mine")
    message = "a.depth.npy is there and was not made by predict: rename it, or choose another folder"
    for arguments in ([], ["--overwrite"], ["--overwrite"]):
        assert call(finished, images, "--tasks=[depth]", *arguments) == 2
        assert message in capsys.readouterr().err
        assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(truth, "mine")
    assert call(finished, images, "--tasks=[normals]") == 0
    assert call(finished, images, "--tasks=[normals,depth]", "--overwrite") == 2
    assert message in capsys.readouterr().err
    (images / "a.png").write_bytes(encoded(pixels(40, 60, seed=1)))
    assert call(finished, images, "--tasks=[normals]", "--overwrite") == 0
    assert {name: (out / name).read_text() for name in truth} == dict.fromkeys(truth, "mine")


def test_scores_of_somebody_else_are_kept(finished: Path, images: Path, capsys: Printed) -> None:
    assert call(finished, images, "--tasks=[semseg]") == 0
    scores = images.parent / "out" / "a.semseg.scores.npy"
    scores.write_text("mine")
    assert call(finished, images, "--tasks=[semseg]", "--scores") == 2
    assert "a.semseg.scores.npy is there and was not made by predict" in capsys.readouterr().err
    (images / "a.png").write_bytes(encoded(pixels(40, 60, seed=1)))
    assert call(finished, images, "--tasks=[semseg]", "--overwrite") == 0
    assert scores.read_text() == "mine"


def test_names_of_every_sort_and_images_that_cannot_be_read(finished: Path, images: Path, capsys: Printed) -> None:
    names = ["two words", "Grüße 日本", "a.b", "-c", "a"]
    for name in names:
        (images / f"{name}.png").write_bytes(encoded(pixels()))
    bad = {"link.png", "folder.png", "200mp.png", "100mp.png"}
    (images / "link.png").symlink_to(images / "nowhere.png")
    (images / "folder.png").mkdir()
    (images / "200mp.png").write_bytes(png_header(20_000, 10_000))
    (images / "100mp.png").write_bytes(png_header(12_500, 8_000))
    assert call(finished, images, "--tasks=[depth]") == 0
    made = {path.name for path in (images.parent / "out").iterdir()}
    assert made == {f"{n}.{e}" for n in names for e in ("depth.npy", "depth.png", "sheet.png")} | {"predictions.json"}
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped")]
    assert {Path(line.split(": ")[0]).name for line in skipped} == bad
    for name in ("100mp.png", "200mp.png"):
        text = f"{name}: more than 89 million pixels are not read: make it smaller or leave it out"
        assert any(line.endswith(text) for line in skipped)


def test_a_name_that_is_too_long(finished: Path, images: Path, capsys: Printed) -> None:
    (images / "a.png").rename(images / f"{'a' * 240}.png")
    assert call(finished, images, "--tasks=[depth]", "--sheet=none") == 2
    assert "File name too long; give it a shorter name" in capsys.readouterr().err


def test_the_folder_is_not_looked_through_for_every_file(
    finished: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would take the longest of thousands of images."""
    listed: list[Path] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or iterdir(folder))
    counts = []
    for number in (2, 5):
        for index in range(number):
            Image.new("RGB", (9, 9)).save(images / f"{number}{index}.png")
        listed.clear()
        assert call(finished, images, "--tasks=[depth]") == 0
        counts.append(listed.count((images.parent / "out").resolve()))
    assert counts[0] == counts[1]


def test_interrupted_and_resumed(
    finished: Path, images: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "bcd":
        Image.new("RGB", (9, 9), (10, 20, 30)).save(images / f"{name}.png")
    whole = PredictionFolder.write

    def until_c(folder: PredictionFolder, stem: str, *arguments: Any) -> None:
        if stem == "c":
            raise KeyboardInterrupt
        whole(folder, stem, *arguments)

    monkeypatch.setattr(PredictionFolder, "write", until_c)
    assert call(finished, images, "--tasks=[depth]", "--batch_size=3") == 130
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.setattr(PredictionFolder, "write", whole)
    assert call(finished, images, "--tasks=[depth]") == 0
    assert "wrote 2 images to" in (printed := capsys.readouterr().out)
    assert "2 were there already" in printed
