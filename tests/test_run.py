"""`fit` through the command line, on a run that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import branchtune as bt
from branchtune.cli.main import main
from branchtune.run.results import Results
from branchtune.settings import Settings
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


def test_a_damaged_checkpoint_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--method=shared", "--name=damaged", "--trainer.max_epochs=1", "--quiet"]
    assert main(["fit", str(finished), *quick]) == 0
    run = run_of(finished, "damaged")
    (run / "results.json").unlink()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    capsys.readouterr()
    assert main(["fit", str(finished), *quick]) == 2
    assert "last.ckpt is damaged" in capsys.readouterr().err


def test_settings_survive_their_own_text(finished: Path, tmp_path: Path) -> None:
    settings = Settings.load(finished, ["--adapter.r=5"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(settings.text())
    assert Settings.load(copy).flat() == settings.flat()
    assert settings.config.adapter == bt.LoRA(r=5)
