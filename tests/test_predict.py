"""`predict`: activated once, at the image's size, for tasks of the package and of a user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from branchtune.cli.main import main
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings
from branchtune.run.inference import prepared
from branchtune.run.workbench import Workbench
from finished_run import run_of
from tiny_run import write_config

TASKS = """--tasks={
  depth: {class_path: own_tasks.PositiveDepth, init_args: {name: depth}},
  normals: {class_path: branchtune.Normals, init_args: {name: normals}},
}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a user's own task and normals."""
    config = write_config(tmp_path_factory.mktemp("predict"))
    arguments = [TASKS, "--method=full", "--trainer.max_epochs=1", "--name=own", "--quiet"]
    assert main(["fit", str(config), *arguments]) == 0
    return config.parent / "runs" / "own"


def predicted(run: Path, folder: Path, size: tuple[int, int]) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """What `predict` writes for an image of `size`, and what the model returns for the same pixels."""
    pixels = np.random.default_rng(1).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    assert main(["predict", str(run), str(folder / "image.png"), "-o", str(folder / "out"), "--quiet"]) == 0
    arrays = {name: np.load(folder / "out" / f"image.{name}.npy") for name in ("depth", "normals")}
    model = MultiTaskModel.from_pretrained(run / "model")
    cfg = model.backbone.frozen.pretrained_cfg
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return arrays, model(((image - mean) / std)[None]) if size == (32, 32) else {}


def test_it_is_what_the_loaded_model_returns(run: Path, tmp_path: Path) -> None:
    arrays, outputs = predicted(run, tmp_path, (32, 32))
    for name, array in arrays.items():
        np.testing.assert_allclose(array, outputs[name][0].numpy().squeeze(), rtol=1e-4, atol=1e-5)


def test_images_are_resized_as_they_were_for_the_evaluation(run: Path, tmp_path: Path) -> None:
    cubic = tmp_path / "cubic"
    shutil.copytree(run, cubic)
    text = (cubic / "config.yaml").read_text()
    assert "interpolation: linear" in text
    (cubic / "config.yaml").write_text(text.replace("interpolation: linear", "interpolation: cubic"))
    found = {}
    for name, folder in (("linear", run), ("cubic", cubic)):
        (tmp_path / name).mkdir(exist_ok=True)
        found[name] = predicted(folder, tmp_path / name, (48, 80))[0]["depth"]
    bench = Workbench(load_settings(cubic).config, Reporter.silent())
    pixels = np.random.default_rng(1).integers(256, size=(48, 80, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    resized = F.resize(image.float(), [32, 32], InterpolationMode.BICUBIC, antialias=False).round().clamp(0, 255) / 255
    mean, std = bench.normalisation
    torch.testing.assert_close(prepared(pixels, bench.image_transform), F.normalize(resized, mean, std))
    assert np.abs(found["linear"] - found["cubic"]).max() > 1e-3


def test_normals_have_unit_length_and_depth_is_activated_at_another_size(run: Path, tmp_path: Path) -> None:
    arrays, _ = predicted(run, tmp_path, (48, 80))
    assert arrays["depth"].shape == (48, 80)
    assert (arrays["depth"] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(arrays["normals"], axis=0), 1, atol=1e-5)


def test_predict_writes_arrays_and_pictures_at_the_images_size(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = finished.parent / "nyud" / "images"
    assert main(["predict", str(run_of(finished)), str(images), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 6 * (4 * 2 + 1) + 1
    assert "0000.sheet.png" in names
    assert names[-1] == "predictions.json"
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


def test_images_whose_results_would_overwrite_each_other(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert main(["predict", str(run_of(finished)), str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "a.jpg and a.png would give files of one name" in capsys.readouterr().err


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != "predictions.json"}


def test_an_interrupted_call_goes_on_and_batches_change_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index, size in enumerate([(20, 30), (32, 32), (48, 16), (32, 32), (9, 9)]):
        pixels = np.random.default_rng(index).integers(256, size=(*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    (images / "3b.png").write_text("no image")
    command = ["predict", str(run_of(finished)), str(images), "--quiet", "-o"]
    one, many = tmp_path / "one", tmp_path / "many"
    assert main([*command, str(one), "--batch_size=1"]) == 0
    assert main([*command, str(many), "--batch_size=4"]) == 0
    first, second = files_of(one), files_of(many)
    assert first.keys() == second.keys()
    for name in first:
        if name.endswith(".npy"):
            np.testing.assert_allclose(np.load(one / name), np.load(many / name), rtol=1e-4, atol=1e-5)
    for name in ("1.depth.png", "2.semseg.npy"):
        (many / name).unlink()
    capsys.readouterr()
    assert main([*command, str(many)]) == 0
    assert "wrote 2 images" in (printed := capsys.readouterr().out)
    assert "3 were there already" in printed
    assert "skipped" in printed
    again = files_of(many)
    assert again.keys() == second.keys()
    assert all(again[name] == second[name] for name in second if name[0] not in "12")
    assert main([*command, str(many), "--overwrite"]) == 0
    assert "wrote 5 images" in capsys.readouterr().out


def test_nothing_is_deleted_but_predictions(
    finished: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.new("RGB", (8, 8)).save(images / "a.png")
    call = ["predict", str(run), str(images), "--quiet", "-o"]
    assert main([*call, str(images)]) == 2
    assert "holds the images, whose pictures would be predicted next time" in capsys.readouterr().err
    assert main(["predict", str(run), str(images / "a.png"), "--quiet", "-o", str(images)]) == 2
    assert "holds the images, whose pictures would be predicted next time" in capsys.readouterr().err
    assert [path.name for path in images.iterdir()] == ["a.png"]
    assert main([*call, str(out)]) == 0
    predicted = set(files_of(out))
    own = {"a.png", "a.npy", "a.b.png", "a.depth.txt", "b.depth.png", "a.new.depth.png"}
    for name in own:
        (out / name).write_text("mine")
    Image.new("RGB", (8, 8), "red").save(images / "a.png")
    capsys.readouterr()
    assert main([*call, str(out), "--tasks=[depth]"]) == 0
    assert "wrote 1 images to" in (printed := capsys.readouterr().out)
    assert ", 1 replace others of the same names, of another path or older" in printed
    assert set(files_of(out)) == own | {"a.depth.npy", "a.depth.png", "a.sheet.png"} < own | predicted


def test_predictions_of_another_model_are_not_mixed(
    finished: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = str(finished.parent / "nyud" / "images" / "0000.jpg"), str(tmp_path / "out")
    assert main(["predict", str(run), image, "-o", out, "--quiet"]) == 0
    assert main(["predict", str(run_of(finished)), image, "-o", out, "--quiet"]) == 2
    assert "holds predictions of another model" in capsys.readouterr().err
    assert main(["predict", str(run_of(finished)), image, "-o", out, "--quiet", "--overwrite"]) == 0
    other = tmp_path / "0000.jpg"
    Image.new("RGB", (8, 8)).save(other)
    before = files_of(tmp_path / "out")
    assert main(["predict", str(run_of(finished)), str(other), "-o", out, "--quiet", "--tasks=[depth]"]) == 0
    after = files_of(tmp_path / "out")
    assert sorted(after) == ["0000.depth.npy", "0000.depth.png", "0000.sheet.png"]  # of another image of that name
    assert after["0000.depth.npy"] != before["0000.depth.npy"]
    (tmp_path / "out" / "predictions.json").write_text("{")
    assert main(["predict", str(run_of(finished)), image, "-o", out, "--quiet"]) == 2
    assert "predictions.json is damaged" in capsys.readouterr().err


def test_a_sheet_shows_what_was_asked_for_and_no_file_of_another_is_touched(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.new("RGB", (30, 20), "red").save(image)
    call = ["predict", str(run), str(image), "--quiet", "-o", str(out)]
    assert main([*call, "--sheet=none"]) == 0
    assert "a.sheet.png" not in files_of(out)
    (out / "a.sheet.png").write_text("mine")
    before = files_of(out)
    for arguments in ([], ["--overwrite"]):
        assert main([*call, *arguments]) == 2
        assert "a.sheet.png is there and was not made by predict: rename it" in capsys.readouterr().err
    assert main([*call, "--sheet=none", "--overwrite"]) == 0
    assert files_of(out)["a.sheet.png"] == before["a.sheet.png"]
    (out / "a.sheet.png").unlink()
    sheets = []
    for arguments in ([], ["--sheet=beside"], ["--tasks=[depth]"]):
        assert main([*call, *arguments]) == 0
        sheets.append((out / "a.sheet.png").read_bytes())
    assert len(set(sheets)) == 3
    capsys.readouterr()
    assert main([*call, "--tasks=[depth]"]) == 0
    assert "1 were there already" in capsys.readouterr().out
    assert main([*call, "--sheet=none"]) == 0
    assert "1 were there already" in capsys.readouterr().out
    assert (out / "a.sheet.png").read_bytes() == sheets[-1]


@pytest.mark.parametrize("argument", ["--batch_size=0", "--workers=-1"])
def test_numbers_too_small_are_refused(
    finished: Path, argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(finished.parent / "nyud" / "images" / "0000.jpg")
    assert main(["predict", str(run_of(finished)), image, "-o", str(tmp_path / "out"), argument]) == 2
    assert argument.strip("-") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
