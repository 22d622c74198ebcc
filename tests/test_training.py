"""The Lightning module: partial labels, what moves and what does not, checkpoints that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.collate import Collate
from branchtune.run.results import Results
from branchtune.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from branchtune.training.losses import check_finite, task_losses
from branchtune.training.module import MultiTaskModule, check_checkpoint
from branchtune.training.schedule import Schedule
from branchtune.training.weighted_sum import WeightedSum
from small_model import TREE, small_model
from tiny_run import write_config


def batch_without(model: bt.MultiTaskModel, missing: str) -> dict[str, Any]:
    samples = [
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
        sample.pop(missing)
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
        check_finite(losses, {"id": ["x", "y"]}, 7)


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


def test_one_task_and_one_image(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    only = "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    run = fit(
        config, "one", only, "--data.train_size=1", "--data.val_size=1", "--method=shared", "--trainer.max_epochs=1"
    )
    assert Results.load(run / "results.json").metrics["depth"]["rmse"] > 0


def test_early_stopping_best_checkpoint_bf16_and_a_logger(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    run = fit(
        config,
        "stops",
        "--method=shared",
        "--optimizer.lr=1e-12",
        "--trainer.max_epochs=6",
        "--trainer.precision=bf16-mixed",
        "--early_stopping=1",
        "--evaluate=best",
        "--loggers=[TensorBoardLogger]",
    )
    rows = (run / "metrics.csv").read_text().splitlines()[1:]
    assert len(rows) < 6 * 4
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert list((run / "logs").rglob("events.*"))


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
