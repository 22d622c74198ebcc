"""The record of gradient conflict: known cosines, nothing of the training changed, cheap."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.collate import Collate
from branchtune.training.conflict import affordable, gradient_cosines, shared_nodes
from finished_run import continued, run_of, same_metrics
from small_model import small_model


def batch(model: bt.MultiTaskModel, without: str | None = None) -> dict:
    samples = []
    for index in range(3):
        sample = {"id": str(index), "image": torch.randn(3, 32, 32), "a": torch.rand(32, 32) + 1}
        sample |= {"b": (torch.rand(32, 32) > 0.5).float(), "c": torch.randint(3, (32, 32))}
        samples.append({key: value for key, value in sample.items() if key != without})
    return Collate(list(model.tasks.values()))(samples)


def test_every_shared_node_has_the_cosines_of_its_tasks_gradients() -> None:
    model = small_model().train()
    data = batch(model)
    found = {(row["node"], row["task_a"], row["task_b"]): row["cosine"] for row in gradient_cosines(model, data)}
    assert {key[0] for key in found} == {"0/a+b+c", "1/a+b+c", "2/a+b"}
    assert len(found) == 3 + 3 + 1
    model.eval()
    gradients = {}
    for task in ("a", "b"):
        model.zero_grad()
        model.tasks[task].loss(model(data["image"].double(), [task])[task], data[task]).backward()
        own = model.backbone.node_adapters(2, 0).parameters()
        gradients[task] = torch.cat([parameter.grad.flatten() for parameter in own if parameter.grad is not None])
    expected = torch.cosine_similarity(gradients["a"], gradients["b"], dim=0)
    assert found["2/a+b", "a", "b"] == pytest.approx(float(expected), rel=1e-9)


def test_it_leaves_gradients_and_modes_and_statistics_as_they_were() -> None:
    model = small_model().train()
    model.decoders["a"].eval()
    next(iter(model.backbone.adapters.parameters())).grad = (
        torch.ones(1)[0].double().expand(next(iter(model.backbone.adapters.parameters())).shape)
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    gradient_cosines(model, batch(model))
    assert [module.training for module in model.modules()] == modes
    assert all(a is b for a, b in zip(gradients, [p.grad for p in model.parameters()], strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_task_without_label_has_no_cosine() -> None:
    model = small_model()
    assert {(row["task_a"], row["task_b"]) for row in gradient_cosines(model, batch(model, without="c"))} == {
        ("a", "b")
    }


def test_nodes_that_do_not_train_are_left_out() -> None:
    assert shared_nodes(small_model(adapter=None, tree=None)) == {}
    assert shared_nodes(small_model(tree=bt.TaskTree.separate(["a", "b", "c"], 4))) == {}
    assert [node.key for node in shared_nodes(small_model(train_tasks=["a", "b"]))] == ["2/a+b"]


@pytest.mark.parametrize(
    ("samples", "tasks", "images", "expected"),
    [(10_000, 4, 8, (8, 1)), (795, 4, 8, (6, 1)), (600, 6, 8, (3, 1)), (100, 4, 8, (2, 3)), (4, 4, 1, (1, 32))],
)
def test_a_record_costs_at_most_two_percent(samples: int, tasks: int, images: int, expected: tuple[int, int]) -> None:
    count, every = affordable(samples, tasks, images)
    assert (count, every) == expected
    assert count * (1 + tasks) / every <= 0.02 * 2 * samples


def test_a_run_records_every_shared_node_after_every_epoch(finished: Path) -> None:
    with (run_of(finished) / "conflict.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "level", "node", "task_a", "task_b", "cosine"]
    assert {row["epoch"] for row in rows} == {"0", "1", "2"}
    assert all(-1 <= float(row["cosine"]) <= 1 for row in rows)
    assert {row["level"] for row in rows} == {"0", "1", "2"}


def test_a_run_without_the_record_has_the_same_numbers(finished: Path) -> None:
    without = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "conflict.csv", "metrics.csv")
    run, command = continued(finished, "unrecorded", *without)
    assert main([*command, "--conflict_every=0"]) == 0
    assert not (run / "conflict.csv").exists()
    assert same_metrics(finished, run)
    assert (run / "metrics.csv").read_text() == (run_of(finished) / "metrics.csv").read_text()


def test_a_negative_interval_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(finished), "--name=negative", "--conflict_every=-1"]) == 2
    assert "conflict_every=-1: must be at least 0" in capsys.readouterr().err
