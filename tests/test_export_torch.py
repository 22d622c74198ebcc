"""`export_torch`: a program that equals the model for any batch, and every mistake before a file appears."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import branchtune as bt
from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.run.exportable import load_exportable
from branchtune.shipping import export_torch as module
from branchtune.tasks.depth import Depth
from exported_models import NeedsMask, OddDecoder, OddTask, names, odd_model, random_images, tokens_model
from finished_run import run_of
from small_backbones import Tokens, grow


def test_it_is_the_model_for_any_batch_and_holds_nothing_else(tmp_path: Path) -> None:
    model = tokens_model()
    path = tmp_path / "new" / "model.pt2"
    path.parent.mkdir()
    path.write_text("of an earlier export")
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    report = bt.export_torch(model, path, tasks=["c"], overwrite=True)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0])
        assert value.requires_grad == before[name][1]
    extra = {"branchtune.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["branchtune.json"]) == {
        "branchtune_version": bt.__version__,
        "tasks": ["c"],
        "kinds": {"c": "Depth"},
        "image_size": [32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    run = program.module()
    with torch.no_grad():
        for batch in (1, 2, 5):
            images = random_images(batch)
            found = run(images)
            assert list(found) == ["c"]
            torch.testing.assert_close(found["c"], model(images)["c"], rtol=0, atol=1e-6)
    held = set(program.state_dict)
    assert any(".1/c." in name for name in held)
    assert not any(".1/b." in name or ".decoders.b." in name for name in held)
    assert b"small_backbones.py" not in path.read_bytes()  # no paths of source files
    assert report.tasks == ("c",)
    assert report.differences["c"] < 1e-6
    assert "torch.export" in str(report)
    assert " ms, torch " in str(report)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("values", r"the decoder of task 'b' cannot be traced \(exported_models.py, line \d+\): its code depends on"),
        (
            "fails",
            r"the decoder of task 'b' fails \(exported_models.py, line \d+\) with RuntimeError: broken; exp",
        ),
    ],
)
def test_a_decoder_that_cannot_be_traced_is_named(kind: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        bt.export_torch(odd_model(kind), tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_the_one_task_that_fixes_the_batch_size_is_named(tmp_path: Path) -> None:
    model = tokens_model()
    model.decoders["c"] = OddDecoder("len").build([8, 8], 1)
    with pytest.raises(UserError, match=r"the code of task 'c' fixes the batch size"):
        bt.export_torch(model, tmp_path / "model.pt2")


def test_a_task_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    tasks = [bt.Depth("b"), OddTask("odd")]
    model = bt.MultiTaskModel(Tokens(), tasks, decoder=bt.LightDecoder(8), levels=["one", "two"], image_size=32)
    with pytest.raises(UserError, match=r"task 'odd' cannot be traced \(exported_models.py, line \d+\)"):
        bt.export_torch(model, tmp_path / "model.pt2")
    assert names(tmp_path) == []


def test_a_backbone_with_further_inputs(tmp_path: Path) -> None:
    model = grow(NeedsMask(), target_modules=["one", "two"], example_inputs={"mask": torch.ones(1, 16)})
    with pytest.raises(UserError, match=r"missing 1 required positional argument: 'mask'; .* on images alone"):
        bt.export_torch(model, tmp_path / "model.pt2")
    assert names(tmp_path) == []


def test_mistakes_in_the_arguments(tmp_path: Path) -> None:
    model, path = tokens_model(), tmp_path / "model.pt2"
    for expected, options in {
        "unknown task 'd'": {"tasks": ["d"]},
        "no task asked for": {"tasks": []},
        r"tasks='b' is a text: pass a list": {"tasks": "b"},
        "cannot take images of 4x4": {"image_size": (4, 4)},
        "cannot take images of 5x5": {"image_size": 5},
        r"image_size=\(4, 4, 4\) is not a size": {"image_size": (4, 4, 4)},
        "image_size=0 is not a size": {"image_size": 0},
        "image_size must be a whole number": {"image_size": (4.5, 4)},
    }.items():
        with pytest.raises(UserError, match=expected):
            bt.export_torch(model, path, **options)
    named = bt.MultiTaskModel(
        Tokens(), [bt.Depth("images")], decoder=bt.LightDecoder(8), levels=["one", "two"], image_size=32
    )
    with pytest.raises(UserError, match="a task named 'images' has the name of the graph's input"):
        bt.export_torch(named, path)
    assert names(tmp_path) == []


def test_a_path_that_is_taken_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"model.pt2 exists: .*--overwrite"):
        bt.export_torch(tokens_model(), path)
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"model.pt2 exists"):
        bt.export_torch(tokens_model(), path)
    with pytest.raises(UserError, match="is a folder: give the name of a file"):
        bt.export_torch(tokens_model(), tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(UserError, match=r"cannot write .*model.pt2: Permission denied; choose a folder"):
        bt.export_torch(tokens_model(), tmp_path / "new" / "model.pt2")
    assert names(tmp_path) == []


def test_a_program_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = torch.export.load

    def changed(file: object) -> object:
        program = load(file)
        program.state_dict["model.decoders.c.output.bias"].data += 0.01
        return program

    monkeypatch.setattr(module.torch.export, "load", changed)
    with pytest.raises(UserError, match=r"\(torch.export\) gives other values for task 'c' than the model \("):
        bt.export_torch(tokens_model(), tmp_path / "model.pt2")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere", "--format=torch"], "nowhere: no such folder"),
        (["{run}"], "required: format"),
        (["{run}", "--format=onx"], "unknown format 'onx': did you mean 'onnx'?"),
        (["{run}", "--format=torch", "--tasks=[dept]"], "unknown task 'dept': did you mean 'depth'?"),
        (["{run}", "--format=torch", "--out={config}"], "exists: choose another path"),
        (["{run}", "--format=peft", "--image_size=64"], "PEFT adapters have none"),
        (["{run}", "--format=torch", "--backbone_checkpoint=x"], "a run names its own"),
        (["{run}/..", "--format=torch"], "is no run directory"),
    ],
)
def test_the_command_used_wrongly(
    arguments: list[str],
    expected: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"run": run_of(finished), "config": finished}
    assert main(["export", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert names(tmp_path) == []


def test_the_model_of_a_run_on_several_nodes(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_of(finished), tmp_path / "nodes"))
    text = (run / "config.yaml").read_text()
    assert "trainer:\n" in text
    (run / "config.yaml").write_text(text.replace("trainer:\n", "trainer:\n  num_nodes: 2\n  devices: 2\n"))
    model = load_exportable(run, None, Reporter.silent())
    assert list(model.tasks) == ["semseg", "depth", "normals", "edge"]


def test_a_run_without_a_model(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("config.yaml", "results.json"):
        (run / file).write_bytes((run_of(finished) / file).read_bytes())
    assert main(["export", str(run), "--format=torch", f"--out={tmp_path / 'model.pt2'}"]) == 2
    assert "has no model" in capsys.readouterr().err
    (run / "results.json").unlink()
    assert main(["export", str(run), "--format=torch", f"--out={tmp_path / 'model.pt2'}"]) == 2
    assert "is not finished" in capsys.readouterr().err
    assert names(tmp_path) == ["run"]


class Calibrated(Depth):
    """Loses its file after the model was traced."""

    def activate(self, raw: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and next(CALLS) > 0:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "calibration.txt")
        return raw


CALLS = itertools.count()


def test_an_error_of_the_users_own_is_not_taken_for_a_failed_write(tmp_path: Path) -> None:
    model = bt.MultiTaskModel(Tokens(), [Calibrated("b")], levels=["one", "two"], image_size=32)
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'calibration.txt'"):
        bt.export_torch(model, tmp_path / "model.pt2")
    assert names(tmp_path) == []
