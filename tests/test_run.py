"""What `fit`, `evaluate`, `plan` and `reference` leave behind, on a run that takes seconds."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import branchtune as bt
from branchtune.cli.main import main
from branchtune.config import RunConfig
from branchtune.data.stored import StoredSamples
from branchtune.run import manifest
from branchtune.run.manifest import tree_sha256
from branchtune.run.results import Results
from branchtune.settings import Settings
from finished_run import continued, run_of


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
    assert ["depth", "rmse", "↓", f"{rmse:.4f}"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_card_of_a_run_loads_it_from_where_it_was_trained(finished: Path) -> None:
    folder = run_of(finished) / "model"
    assert f'from_pretrained("{folder.as_posix()}"' in (folder / "README.md").read_text(encoding="utf-8")


def test_plan_reads_the_runs_affinity(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tree.json"
    assert main(["plan", str(run_of(finished)), "--groups=[1,2,2,3]", f"--out={out}"]) == 0
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("total"))
    assert total.split()[1] == "19,712"  # of the run's adapter, r=2: 1792 for each of the 11 blocks of the nodes
    assert bt.TaskTree.from_json(json.loads(out.read_text())).group_counts == (1, 2, 2, 3)


# A copy begins its training anew: Lightning warns of checkpoints whose folder was another one.
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt")


def drawing(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("tree "))
    end = next(index for index, line in enumerate(lines) if "times the MACs" in line)
    return lines[start : end + 1]


def test_fit_draws_the_tree_as_plan_does(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, command = continued(finished, "drawn", *CHECKPOINTS)  # from its tree.json on, after the affinity
    assert main(command) == 0
    drawn = drawing(capsys.readouterr().out)
    assert drawn[0].split() == ["tree", "level", "affinity", "parameters", "MACs", "share"]
    assert main(["plan", str(run), "--groups=[1,1,2,4]"]) == 0
    assert drawn == drawing(capsys.readouterr().out)


def test_a_run_whose_affinity_is_gone_goes_on_without_its_column(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command = continued(finished, "forgotten", "affinity.json", *CHECKPOINTS)
    assert main(command) == 0
    assert drawing(capsys.readouterr().out)[0].split() == ["tree", "level", "parameters", "MACs", "share"]


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


def test_a_run_leaves_no_model_and_no_data_in_memory(finished: Path) -> None:
    def held() -> set[int]:
        return {id(thing) for thing in gc.get_objects() if type(thing) in (bt.MultiTaskModel, StoredSamples)}

    gc.collect()
    before = held()
    command = ["fit", str(finished), "--name=memory", "--method=shared", "--trainer.max_epochs=1", "--quiet"]
    assert main(command) == 0
    assert held() <= before


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
    assert content["hardware"].endswith(" threads")
    assert {"torch", "timm", "lightning", "branchtune"} <= set(content["versions"])


def test_evaluate_misses_its_reference_before_the_long_step(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of(finished), run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("reference: null", "reference: gone/reference.json"))
    monkeypatch.setattr("branchtune.run.finished.evaluate_run", lambda *_: pytest.fail("evaluated"))
    assert main(["evaluate", str(run), "--quiet"]) == 2
    assert "gone/reference.json" in capsys.readouterr().err


def test_the_commit_is_that_of_the_repository_that_has_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "manifest.py"
    code.write_text("")
    monkeypatch.setattr(manifest, "__file__", str(code))
    assert manifest.commit.__wrapped__() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "elsewhere"], check=True)
    assert manifest.commit.__wrapped__() is None
    subprocess.run([*git, "add", "manifest.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "here"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(str(manifest.commit.__wrapped__()))
    code.write_text("changed")
    assert str(manifest.commit.__wrapped__()).endswith("+changes")


def test_config_yaml_is_the_whole_configuration(finished: Path) -> None:
    content = yaml.safe_load((run_of(finished) / "config.yaml").read_text())
    assert content["reference"] is None
    others = {"budget": None, "budget_params": None, "levels": None, "keep_agreeing": False, "task_streams": False}
    assert content["tree"] == {"groups": [1, 1, 2, 4], **others}
    assert set(content) == set(RunConfig.__dataclass_fields__)


def test_settings_survive_their_own_text(finished: Path, tmp_path: Path) -> None:
    settings = Settings.load(finished, ["--adapter.r=5"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(settings.text())
    assert Settings.load(copy).flat() == settings.flat()
    assert Settings.parse(settings.text()).flat() == settings.flat()
    assert settings.config.adapter == bt.LoRA(r=5)
