"""`add-task` and `remove-task`: new runs from a finished one, which stays as it was."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.extension import continued_nodes
from branchtune.progress import Reporter
from branchtune.run.results import Results
from branchtune.run.start import keep_tasks
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.tree import TaskTree
from finished_run import run_of

EDGE = "--tasks.edge={class_path: branchtune.Edges, init_args: {name: edge}}"
ONLY_EDGE = "--tasks={edge: {class_path: branchtune.Edges, init_args: {name: edge}}}"
PLACE = ["--like=depth", "--share_levels=2"]


@pytest.fixture(scope="module")
def removed(finished: Path) -> Path:
    """The run without edge, to which edge is added again; the run itself is left as it was."""
    before = files_of(run_of(finished))
    assert main(["remove-task", str(run_of(finished)), "edge", "--name=removed", "--quiet"]) == 0
    assert files_of(run_of(finished)) == before
    return run_of(finished, "removed")


@pytest.fixture(scope="module")
def added(removed: Path) -> Path:
    before = files_of(removed)
    assert main(["add-task", str(removed), EDGE, *PLACE, "--name=added", "--quiet"]) == 0
    assert files_of(removed) == before
    return removed.with_name("added")


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def metrics(run: Path) -> dict[str, dict[str, float]]:
    return Results.load(run / "results.json").metrics


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "model"
    decoders = {f"decoders.{key}": tensor for key, tensor in load_file(folder / "decoders.safetensors").items()}
    return load_file(folder / "adapter_model.safetensors") | decoders


def tree_of(run: Path) -> TaskTree:
    return TaskTree.from_json(json.loads((run / "tree.json").read_text()))


def assert_weights_continue(old: Path, new: Path) -> set[str]:
    """Every tensor of the smaller run is in the larger one; returns the names that are new."""
    names = continued_nodes(tree_of(old), tree_of(new))
    before, after = weights(old), weights(new)
    for name, tensor in before.items():
        parts = name.split(".")
        if parts[0] == "adapters":
            parts[1] = next(key for key, was in names.items() if was == parts[1])
        assert torch.equal(after.pop(".".join(parts)), tensor), name
    return set(after)


def test_removing_writes_a_finished_run(finished: Path, removed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in removed.iterdir()) == [
        "config.yaml",
        "manifest.json",
        "model",
        "report.html",
        "results.json",
        "tree.json",
    ]
    before, after = metrics(run_of(finished)), metrics(removed)
    assert set(before) - set(after) == {"edge"}
    for task, values in after.items():
        assert values == pytest.approx(before[task], rel=1e-5, nan_ok=True)
    assert {name.split(".")[1] for name in assert_weights_continue(removed, run_of(finished))} == {"3/edge", "edge"}
    assert Results.load(removed / "results.json").groups == [1, 1, 2, 3]
    assert main(["fit", str(removed / "config.yaml"), "--quiet"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["evaluate", str(removed), "--quiet"]) == 0
    assert "edge" not in capsys.readouterr().out


def test_removing_again_finds_what_is_there(finished: Path, removed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["remove-task", str(run_of(finished)), "edge", "--name=removed", "--quiet"]) == 0
    assert f"{removed} is finished" in capsys.readouterr().out


def test_both_end_with_a_table_in_a_format_of_ones_choice(
    finished: Path, removed: Path, added: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["remove-task", str(run_of(finished)), "edge", "--name=removed", "--quiet", "--format=json"]) == 0
    captured = capsys.readouterr()
    assert [run["name"] for run in json.loads(captured.out)["runs"]] == ["tiny", "removed"]
    assert f"wrote {removed}" in captured.err
    assert main(["add-task", str(removed), EDGE, *PLACE, "--name=added", "--quiet", "--format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["run"] for row in rows if row["task"] == "edge"} == {"added"}
    assert {row["run"] for row in rows if row["task"] == "depth"} == {"added", "removed"}


def test_adding_trains_what_is_new_and_keeps_the_rest(removed: Path, added: Path) -> None:
    for name in ("config.yaml", "tree.json", "results.json", "manifest.json", "metrics.csv", "checkpoints/last.ckpt"):
        assert (added / name).is_file()
    new = assert_weights_continue(removed, added)
    assert {name.split(".")[1] for name in new} == {"2/edge", "3/edge", "edge"}
    assert any(name.endswith("lora_B") and weights(added)[name].abs().sum() > 0 for name in new)
    before, after = metrics(removed), metrics(added)
    assert set(after) - set(before) == {"edge"}
    for task, values in before.items():
        assert values == pytest.approx(after[task], rel=1e-5, nan_ok=True)
    assert tree_of(added) == tree_of(removed).with_task("edge", "depth", 2)
    content = json.loads((added / "manifest.json").read_text())
    config = json.loads((removed / "model" / "adapter_config.json").read_text())
    assert content["start_from"] == {"run": str(removed), "hashes": config["hashes"]}
    assert 0 < content["trained_parameters"]["adapters"] < content["parameters"]["adapters"]


@pytest.mark.slow
def test_the_new_run_lies_beside_the_old_one_wherever_that_was_moved(finished: Path, tmp_path: Path) -> None:
    for run in (tmp_path / "moved" / "tiny", tmp_path / "renamed"):
        shutil.copytree(run_of(finished), run)
        assert main(["remove-task", str(run), "edge", "--name=less", "--quiet"]) == 0
        assert (run.with_name("less") / "results.json").is_file()


def test_the_same_command_continues_an_interrupted_run(
    removed: Path, added: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["add-task", str(removed), EDGE, *PLACE, "--name=again", "--quiet"]
    steps: list[Any] = []

    def interrupt(*args: Any) -> None:
        steps.append(args)
        if len(steps) == 3 + 3:  # three steps of the decoder's fit, and the first epoch and a half
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in ("decoder_fit", "training.module"):
            patch.setattr(f"branchtune.{module}.check_finite", interrupt)
        assert main(command) == 130
    assert "the same command continues the run" in capsys.readouterr().err
    again = removed.with_name("again")
    assert not (again / "results.json").exists()
    assert not (again / "model").exists()
    assert main(command) == 0
    assert "fit decoders" not in capsys.readouterr().out
    assert metrics(again) == metrics(added)
    assert (again / "metrics.csv").read_text() == (added / "metrics.csv").read_text()
    assert main(command) == 0
    assert "again is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_fast_dev_run_leaves_nothing_behind(removed: Path) -> None:
    command = ["add-task", str(removed), EDGE, *PLACE, "--name=quick", "--trainer.fast_dev_run=true", "--quiet"]
    assert main(command) == 0
    assert not removed.with_name("quick").exists()


@pytest.mark.slow
def test_the_configuration_repeats_the_run(added: Path, tmp_path: Path) -> None:
    assert main(["fit", str(added / "config.yaml"), f"--output={tmp_path}", "--quiet"]) == 0
    assert metrics(tmp_path / "added") == metrics(added)


@pytest.mark.slow
def test_everything_trains_on_request_and_nodes_are_copied(removed: Path) -> None:
    more = ["--train=all", "--init=copy", "--trainer.max_epochs=1", "--name=all", "--quiet"]
    assert main(["add-task", str(removed), EDGE, *PLACE, *more]) == 0
    run = removed.with_name("all")
    before, after = weights(removed), weights(run)
    moved = [name for name in before if name.startswith("decoders") and not torch.equal(before[name], after[name])]
    assert {name.split(".")[1] for name in moved} == {"semseg", "depth", "normals"}
    content = json.loads((run / "manifest.json").read_text())
    assert content["trained_parameters"]["adapters"] == content["parameters"]["adapters"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "comb"])
def test_runs_without_a_tree_of_their_own(finished: Path, method: str) -> None:
    quick = ["--trainer.max_epochs=1", "--decoder_fit.steps=0", "--quiet"]
    tasks = "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    assert main(["fit", str(finished), f"--method={method}", f"--name=one-{method}", tasks, *quick]) == 0
    run = run_of(finished, f"one-{method}")
    arguments = ["--like=depth", "--share_levels=4", f"--name=two-{method}", "--quiet"]
    assert main(["add-task", str(run), EDGE, *arguments]) == 0
    results = Results.load(run_of(finished, f"two-{method}") / "results.json")
    assert results.groups == [1, 1, 1, 1]
    assert results.metrics["depth"] == pytest.approx(metrics(run)["depth"], rel=1e-5)


def test_the_model_to_begin_with_is_in_training_mode(added: Path) -> None:
    bench = Workbench(Settings.load(added / "config.yaml").config, Reporter(quiet=True))
    model = bench.build(None)
    assert model.training
    assert model.train_tasks == ("edge",)


def test_the_new_run_recomputes_the_levels_that_it_is_told_to(added: Path) -> None:
    for levels, expected in (("true", (0, 1, 2, 3)), ("[2]", (2,)), ("false", ())):
        settings = Settings.load(added / "config.yaml", [f"--checkpoint_levels={levels}"])
        model = Workbench(settings.config, Reporter(quiet=True)).build(None)
        assert model.backbone.checkpoint_levels == expected


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([*arguments, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*PLACE], "no task is new, "),
        ([EDGE.replace("edge", "depth"), *PLACE], "has semseg, depth, normals: give one of another name"),
        ([EDGE], "--like is not set: name a task (--like) and how many levels of its path the new one shares"),
        ([EDGE, "--like=depth"], "the tree, level by level: {depth,normals,semseg} | {depth,normals,semseg} | "),
        ([EDGE, "--like=dept", "--share_levels=2"], "unknown task 'dept': did you mean 'depth'?"),
        ([EDGE, "--like=depth", "--share_levels=5"], "levels=5: a new task shares 0 to 4 levels"),
        ([EDGE, *PLACE, "--init=zero"], "init: Expected one of 'fresh', 'copy'"),
        (["--tasks.edge=branchtune.LoRA", *PLACE], "branchtune.LoRA"),
        ([EDGE, EDGE.replace("edge", "sal"), *PLACE], "2 tasks are new (edge, sal): add one at a time"),
        ([EDGE, *PLACE, "--adapter.r=3"], "adapter.init_args.r=3, but the model of"),
        ([EDGE, *PLACE, "--tasks.depth.init_args.weight=2"], "tasks.depth.init_args.weight=2.0, but the model"),
        ([EDGE, *PLACE, "--output=/dev/null"], "/dev/null"),
        ([EDGE, *PLACE, "--trainer.devices=2"], "trainer.devices=2: add-task uses one device, leave the key out"),
    ],
)
def test_additions_that_cannot_be(
    arguments: list[str], expected: str, removed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(["add-task", str(removed), *arguments, "--name=nothing"], capsys)
    assert not removed.with_name("nothing").exists()


def test_runs_that_cannot_be_started_from(
    finished: Path, removed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the finished run comes first: branchtune add-task RUN --name NEW" in refused(["add-task"], capsys)
    assert "is no run directory" in refused(["add-task", str(tmp_path), EDGE, *PLACE, "--name=x"], capsys)
    assert "--name is not set" in refused(["add-task", str(removed), EDGE, *PLACE], capsys)
    unfinished = Path(shutil.copytree(removed, tmp_path / "unfinished"))
    (unfinished / "results.json").unlink()
    assert "is not finished" in refused(["add-task", str(unfinished), EDGE, *PLACE, "--name=x"], capsys)
    run = str(run_of(finished))
    assert "needs a task after the run" in refused(["remove-task", run, "--name=x"], capsys)
    assert "unknown task 'edg': did you mean 'edge'" in refused(["remove-task", run, "edg", "--name=x"], capsys)
    command = ["affinity", str(removed / "config.yaml"), "--name=x"]
    assert "has its tree from there" in refused(command, capsys)
    command = ["compare", str(removed / "config.yaml"), "--name=x"]
    assert "start_from continues one model" in refused(command, capsys)
    Reference("ours", {"semseg": 0.4, "depth": 1.0, "normals": 20.0}).save(tmp_path / "ours.json")
    command = ["add-task", str(removed), EDGE, *PLACE, f"--reference={tmp_path / 'ours.json'}", "--name=x"]
    assert "reference 'ours' has no value for task 'edge'" in refused(command, capsys)
    assert not removed.with_name("x").exists()
    with pytest.raises(UserError, match=r"'edge' is the only task: a model needs at least one"):
        keep_tasks(
            Settings.load(finished, ["--tasks={edge: {class_path: branchtune.Edges, init_args: {name: edge}}}"]), "edge"
        )


def test_another_model_under_the_same_name_is_refused(
    removed: Path, added: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(added, tmp_path / "added"))
    (run / "results.json").unlink()
    content = json.loads((run / "manifest.json").read_text())
    content["start_from"]["hashes"]["decoders.safetensors"] = "0"
    (run / "manifest.json").write_text(json.dumps(content))
    error = refused(["fit", str(run / "config.yaml"), f"--output={tmp_path}"], capsys)
    assert f"the model of {removed} is not the one that this run began with" in error
