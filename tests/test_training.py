"""The Lightning module: partial labels, what moves and what does not, checkpoints that do not fit."""

from __future__ import annotations

import csv
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, IterableDataset

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.collate import Collate
from branchtune.finite import check_finite
from branchtune.run.results import Results
from branchtune.training.callbacks import MetricsTable
from branchtune.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from branchtune.training.losses import task_losses
from branchtune.training.model_checkpoint import ModelCheckpoint
from branchtune.training.module import MultiTaskModule, check_checkpoint
from branchtune.training.schedule import Schedule
from branchtune.training.weighted_sum import WeightedSum
from small_model import TREE, small_model
from tiny_run import write_config


def batch_without(model: bt.MultiTaskModel, missing: str | None) -> dict[str, Any]:
    samples: list[dict[str, Any]] = [
        {
            "id": str(i),
            "image": torch.rand(3, 32, 32),
            "a": torch.full((32, 32), 2.0),
            "b": torch.ones(32, 32),
            "c": torch.zeros(32, 32, dtype=torch.int64),
        }
        for i in range(2)
    ]
    for sample in samples:
        sample.pop(missing, None)
    batch = Collate(list(model.tasks.values()))(samples)
    return {key: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for key, v in batch.items()}


@pytest.mark.parametrize("missing", ["a", "b", "c"])
def test_a_task_without_label_gives_no_loss_and_no_gradient(missing: str) -> None:
    model = small_model()
    batch = batch_without(model, missing)
    losses = task_losses(model(batch["image"]), batch, model.tasks)
    assert sorted(losses) == sorted({"a", "b", "c"} - {missing})
    torch.stack(list(losses.values())).sum().backward()
    leaf = model.backbone.node_adapters(3, TREE.group_of(missing, 3))
    assert all(parameter.grad is None for parameter in leaf.parameters())
    assert all(parameter.grad is None for parameter in model.decoders[missing].parameters())


def test_a_loss_that_is_not_finite_names_task_step_and_samples() -> None:
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))}
    with pytest.raises(bt.UserError, match=r"task 'b' became inf at step 7 \(samples x, y\)"):
        check_finite("loss", losses, ["x", "y"], "at step 7", "lower the learning rate")


def module_of(model: bt.MultiTaskModel) -> MultiTaskModule:
    return MultiTaskModule(model, WeightedSum(), Schedule())


def checkpoint_of(module: MultiTaskModule) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_a_checkpoint_holds_what_trains_and_nothing_frozen() -> None:
    module = module_of(small_model())
    state = checkpoint_of(module)["state_dict"]
    assert state
    assert all(name.startswith(("backbone.adapters.", "decoders.")) for name in state)
    other = module_of(small_model())
    for parameter in other.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.ones_(parameter)
    other.on_load_checkpoint(checkpoint_of(module))
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    for name, output in module.model.eval()(images).items():
        assert torch.equal(output, other.model.eval()(images)[name])


def test_checkpoints_that_do_not_fit_say_why() -> None:
    module = module_of(small_model())
    good = checkpoint_of(module)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"branchtune": None}, "not written by branchtune"),
        ({"branchtune": {**good["branchtune"], "format": 99}}, "update branchtune"),
        ({"branchtune": {**good["branchtune"], "backbone": "resnet18"}}, "'resnet18'"),
        (
            {"branchtune": {**good["branchtune"], "tree": bt.TaskTree.shared(["a", "b", "c"], 4).to_json()}},
            "another tree",
        ),
    ]
    for change, message in changes:
        with pytest.raises(bt.UserError, match=message):
            check_checkpoint({**good, **change}, module.model)
    with pytest.raises(bt.UserError, match="another model"):
        module.load_trained_state({**good["state_dict"], "decoders.z": torch.zeros(1)})


def test_checkpoints_are_written_whole_and_read_without_unpickling(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, path)
    assert read_checkpoint(path)["epoch"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["x.ckpt"]
    torch.save({"evil": Path}, path)
    with pytest.raises(bt.UserError, match="damaged"):
        read_checkpoint(path)
    with pytest.raises(bt.UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nothing.ckpt")


def fit(config: Path, name: str, *arguments: str) -> Path:
    assert main(["fit", str(config), f"--name={name}", "--decoder_fit.steps=1", "--quiet", *arguments]) == 0
    return config.parent / "runs" / name


def test_the_best_checkpoint_of_a_run_that_was_moved_is_still_the_best(tmp_path: Path) -> None:
    before, after = (ModelCheckpoint(tmp_path / name, "best", monitor="score", mode="max") for name in ("old", "new"))
    path, score = str(tmp_path / "old" / "best.ckpt"), torch.tensor(0.5)
    before.best_model_path = before.kth_best_model_path = path
    before.best_model_score = before.kth_value = before.best_k_models[path] = score
    (tmp_path / "old").mkdir()
    (tmp_path / "old").rename(tmp_path / "new")
    after.load_state_dict(before.state_dict())
    here = str(tmp_path / "new" / "best.ckpt")
    assert after.best_model_score == 0.5
    assert (after.best_model_path, after.kth_best_model_path, after.last_model_path) == (here, here, "")
    assert after.best_k_models == {here: score}
    lightnings = L.pytorch.callbacks.ModelCheckpoint(tmp_path / "new", "best", monitor="score", mode="max")
    assert after.state_key == lightnings.state_key  # else the checkpoints of older runs would lose theirs


def test_a_single_process_needs_no_float64_for_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some devices have none."""

    def missing(_: torch.Tensor) -> torch.Tensor:
        raise TypeError("no float64 here")

    model = small_model()
    model.decoders["a"].register_buffer("running_mean", torch.tensor([1.0, 2.0]))
    module = MultiTaskModule(model, WeightedSum(), Schedule())
    monkeypatch.setattr(torch.Tensor, "double", missing)
    module._share_statistics()
    assert model.decoders["a"].running_mean.tolist() == [1.0, 2.0]


def test_one_task_and_one_image(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    only = "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    run = fit(
        config, "one", only, "--data.train_size=1", "--data.val_size=1", "--method=shared", "--trainer.max_epochs=1"
    )
    assert Results.load(run / "results.json").metrics["depth"]["rmse"] > 0


def test_one_task_branched(tmp_path: Path) -> None:
    only = "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    run = fit(write_config(tmp_path), "one", only, "--tree.groups=[1,1,1,1]", "--trainer.max_epochs=1")
    results = Results.load(run / "results.json")
    assert results.groups == [1, 1, 1, 1]
    assert results.parameters["adapters"] > 0


def test_one_image_branched_by_hand(tmp_path: Path) -> None:
    chain = "[[depth,edge,normals,semseg]]"
    arguments = ["--tree.groups=null", f"--tree.levels=[{','.join([chain] * 4)}]", "--trainer.max_epochs=1"]
    run = fit(write_config(tmp_path), "one", *arguments, "--data.train_size=1")
    assert not (run / "affinity.json").exists()


def scores(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the epochs have these validation scores."""
    left = list(values)
    monkeypatch.setattr(MetricsTable, "_score", lambda self, results, module: left.pop(0))


def test_the_last_checkpoint_is_of_the_last_epoch_and_the_best_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 1.0, 3.0, float("nan"), 2.0)
    run = fit(write_config(tmp_path), "best", "--method=shared", "--trainer.max_epochs=4", "--evaluate=best")
    last, best = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    assert (best["epoch"], last["epoch"]) == (1, 3)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    saved = load_file(run / "model" / "decoders.safetensors")
    assert all(torch.equal(value, best["state_dict"][f"decoders.{name}"]) for name, value in saved.items())


def test_early_stopping_bf16_a_logger_and_a_stopped_run_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 1.0, float("nan"), 0.5)
    config = write_config(tmp_path)
    arguments = [
        "--method=shared",
        "--trainer.max_epochs=6",
        "--trainer.precision=bf16-mixed",
        "--early_stopping=2",
        "--loggers=[TensorBoardLogger]",
    ]
    run = fit(config, "stops", *arguments)
    table = (run / "metrics.csv").read_text()
    assert len(table.splitlines()) == 1 + 3 * 4
    assert list((run / "logs").rglob("events.*"))
    before = Results.load(run / "results.json")
    (run / "results.json").unlink()
    after = Results.load(fit(config, "stops", *arguments) / "results.json")  # no score is left for a fourth epoch
    assert after.metrics == before.metrics
    assert after.train_seconds == pytest.approx(before.train_seconds, rel=0.5)
    assert (run / "metrics.csv").read_text() == table


def trainer(**arguments: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{"accelerator": "cpu", **quiet, **arguments})


class Stream(IterableDataset[dict[str, Any]]):
    """Batches without end."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return itertools.repeat(self.batch)


@pytest.mark.parametrize(
    ("length", "arguments", "message"),
    [
        (None, {"max_steps": 2, "max_epochs": -1}, "the loader does not say how many batches"),
        (2, {"max_epochs": -1}, "no end of the training"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # Lightning's
def test_a_schedule_needs_the_length_of_epoch_and_training(
    length: int | None, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    module, batch = module_of(small_model()), batch_without(small_model(), None)
    data: Any = Stream(batch) if length is None else [batch] * length
    with pytest.raises(bt.UserError, match=message):
        trainer(**arguments, default_root_dir=tmp_path).fit(module, DataLoader(data, batch_size=None))


class GradientNorms(L.Callback):
    """After every step, of the gradients that it was made with."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.found.append(float(torch.nn.utils.get_total_norm(gradients)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_either_precision_on_a_cpu(precision: str, tmp_path: Path) -> None:
    model, norms = small_model().float(), GradientNorms()
    batch = {
        key: v.float() if torch.is_tensor(v) and v.is_floating_point() else v
        for key, v in batch_without(model, None).items()
    }
    arguments = {"precision": precision, "gradient_clip_val": 1e-3, "default_root_dir": tmp_path}
    module = MultiTaskModule(model, WeightedSum(), Schedule(warmup_epochs=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, about loaders and frozen modules
        trainer(max_epochs=1, callbacks=[norms], **arguments).fit(module, DataLoader([batch, batch], batch_size=None))
    assert norms.found == pytest.approx([1e-3, 1e-3], rel=1e-2)


def test_the_score_leaves_out_tasks_without_label() -> None:
    module = module_of(small_model())
    results = {name: {task.headline: 2.0, "loss": 3.0} for name, task in module.model.tasks.items()}
    reference = {"a": 1.0, "b": 1.0, "c": 1.0}
    total = sum(task.weight for task in module.model.tasks.values())
    for table, all_tasks, without_c in (
        (MetricsTable(Path("x.csv"), None), -3.0 * total, -3.0 * (total - module.model.tasks["c"].weight)),
        (MetricsTable(Path("x.csv"), reference), 100 / 3, 0.0),  # a: depth, worse; b and c: better
    ):
        assert table._score(results, module) == pytest.approx(all_tasks)
        missing = {**results, "c": dict.fromkeys(results["c"], float("nan"))}
        assert table._score(missing, module) == pytest.approx(without_c)
        nothing = {name: dict.fromkeys(values, float("nan")) for name, values in results.items()}
        assert table._score(nothing, module) != table._score(nothing, module)


@pytest.mark.parametrize("optimizer", ["WeightedSum", "AdaTask"])
def test_max_steps_ends_the_training_and_an_epoch_stays_an_epoch(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[int, int]] = []
    build = Schedule.build

    def spy(self: Schedule, given: Any, steps_per_epoch: int, total_steps: int) -> Any:
        built.append((steps_per_epoch, total_steps))
        return build(self, given, steps_per_epoch, total_steps)

    monkeypatch.setattr(Schedule, "build", spy)
    run = fit(
        write_config(tmp_path),
        "steps",
        "--method=shared",
        f"--optimizer=branchtune.{optimizer}",
        "--data.batch_size=1",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.max_epochs=10",
        "--trainer.max_steps=4",
    )
    assert built == [(2, 4)]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2 * 4


def test_without_validation_there_is_a_last_checkpoint_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(
        write_config(tmp_path),
        "unvalidated",
        "--method=shared",
        "--trainer.limit_val_batches=0",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
    )
    captured = capsys.readouterr()
    assert "train unvalidated: 1 of 1 in" in captured.out
    assert not captured.err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not (run / "metrics.csv").exists()


def test_clipping_and_accumulation_mean_the_same_in_both_modes(tmp_path: Path) -> None:
    """With one task AdaTask is Adam, so both modes must give the same weights under the same keys."""
    config = write_config(tmp_path)
    common = [
        "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}",
        "--method=shared",
        "--trainer.max_epochs=2",
        "--trainer.gradient_clip_val=0.05",
        "--trainer.accumulate_grad_batches=2",
        "--data.batch_size=1",
        "--decoder.dim=32",  # one channel per normalised group would leave its bias with rounding errors for a gradient
    ]
    undecayed = "--optimizer.weight_decay=0"
    automatic = fit(config, "automatic", *common, "--optimizer=branchtune.WeightedSum", undecayed)
    manual = fit(config, "manual", *common, "--optimizer=branchtune.AdaTask", undecayed)
    first, second = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (automatic, manual))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_the_csv_logger_gets_the_losses_of_every_task(tmp_path: Path) -> None:
    arguments = ["--method=shared", "--loggers=[CSVLogger]", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    run = fit(write_config(tmp_path), "csv", *arguments)
    (file,) = (run / "logs").rglob("metrics.csv")
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for task in ("semseg", "depth", "normals", "edge"):
        for kind in ("train_loss", "val_loss"):
            logged = [float(row[f"{kind}/{task}"]) for row in rows if row.get(f"{kind}/{task}")]
            assert len(logged) == 2
            assert all(math.isfinite(value) for value in logged)


def test_progress_counts_the_batches_of_validations_that_are_rare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(write_config(tmp_path), "rare", "--method=shared", "--trainer.check_val_every_n_epoch=2")
    found = re.search(r"train rare: (\d+) of (\d+)", capsys.readouterr().out)
    assert found is not None
    assert found[1] == found[2]
    table = (tmp_path / "runs" / "rare" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["1"] * 4


def test_adatask_logs_how_much_each_task_moves_what_is_shared(tmp_path: Path) -> None:
    arguments = ["--method=shared", "--optimizer=AdaTask", "--loggers=[CSVLogger]", "--trainer.max_epochs=2"]
    run = fit(write_config(tmp_path), "dominance", *arguments)
    (file,) = (run / "logs").rglob("metrics.csv")
    with file.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row.get("dominance/depth")]
    assert len(rows) == 2
    for row in rows:
        shares = [float(row[f"dominance/{task}"]) for task in ("semseg", "depth", "normals", "edge")]
        assert sum(shares) == pytest.approx(1.0)
        assert min(shares) > 0
