"""What each of two processes computes on its half of a batch; run by test_joint.py."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import Metric

import branchtune as bt
from branchtune.evaluation.evaluate import TaskMetrics
from branchtune.joint import joint_step
from branchtune.training.losses import task_losses
from branchtune.training.module import MultiTaskModule
from branchtune.training.processes import ddp_options
from branchtune.training.schedule import Schedule
from branchtune.training.task_gradients import joint_gradients, task_gradients
from small_model import small_model

PROCESSES = 2
OWN = "f"  # the task of a user's own, whose loss is a mean over the samples of its process


class OwnMean(bt.Depth):
    """A user's own loss that knows nothing of other processes, and is NaN without a label."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target)[~target.isnan()].abs().mean()


class OwnMetric(Metric):
    """A user's own, which keeps what it has seen, and fails where it has seen nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        self.seen.append(target[~target.isnan()].float())

    def compute(self) -> Tensor:
        seen = torch.cat(self.seen) if isinstance(self.seen, list) else self.seen
        return seen.sum() / len(seen)


class OwnNormals(bt.Normals):
    def metrics(self) -> dict[str, Metric]:
        return {**super().metrics(), "own": OwnMetric()}


class OwnEdges(bt.Edges):
    def metrics(self) -> dict[str, Metric]:
        return {**super().metrics(), "own": OwnMetric()}


def model_and_batch() -> tuple[bt.MultiTaskModel, dict[str, Any]]:
    """Labels differ in number; `d` has one in the first half of the batch only, `e` has none, `f` is a user's own."""
    tasks = [
        bt.Depth("a"),
        bt.Saliency("b"),
        bt.SemanticSegmentation("c", num_classes=3),
        OwnNormals("d"),
        OwnEdges("e"),
        OwnMean("f"),
    ]
    names = [[task.name for task in tasks]]
    tree = bt.TaskTree([names, names, [["a", "b", "e"], ["c", "d", "f"]], [[name] for name in names[0]]])
    torch.manual_seed(1)
    model = bt.MultiTaskModel(small_model().backbone.frozen, tasks, tree, bt.LoRA(r=2), bt.LightDecoder(8, 8)).double()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.1)
    values = torch.rand(4, 32, 32, dtype=torch.float64)
    classes = torch.randint(3, (4, 32, 32))
    normals = nn.functional.normalize(torch.randn(4, 3, 32, 32, dtype=torch.float64), dim=1)
    batch: dict[str, Any] = {
        "id": list("wxyz"),
        "image": torch.rand(4, 3, 32, 32, dtype=torch.float64),
        "a": torch.where(values > torch.tensor([0.1, 0.5, 0.9, 0.2]).view(-1, 1, 1), 1 + values, torch.nan),
        "b": (values > torch.tensor([0.1, 0.9, 0.5, 0.99]).view(-1, 1, 1)).double(),
        "c": torch.where(values > 0.3, classes, 255),
        "d": normals.where(torch.tensor([True, False, False, False]).view(-1, 1, 1, 1), torch.tensor(torch.nan)),
        "e": torch.full((4, 32, 32), torch.nan, dtype=torch.float64),
        "f": (1 + values).where(torch.tensor([False, False, True, True]).view(-1, 1, 1), torch.tensor(torch.nan)),
    }
    return model.eval(), batch  # BatchNorm of a decoder sees the samples of its own process only


class Step(nn.Module):
    """What Lightning's `training_step` does, for all tasks but the user's own."""

    def __init__(self, model: bt.MultiTaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> Tensor:
        with joint_step():
            losses = task_losses(self.model(batch["image"]), batch, self.model.tasks)
        return torch.stack([loss for name, loss in losses.items() if name != OWN]).sum()


def gradients_of(model: bt.MultiTaskModel) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def per_task_gradients(model: bt.MultiTaskModel, batch: dict[str, Any]) -> dict[str, Tensor]:
    with joint_step():
        losses = task_losses(model(batch["image"]), batch, model.tasks)
        found = joint_gradients(task_gradients(losses, [p for p in model.parameters() if p.requires_grad]))
    return {
        f"{task}.{index}": value
        for task, values in found.items()
        for index, value in enumerate(values)
        if value is not None
    }


def metrics_of(model: bt.MultiTaskModel, batches: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    metrics = TaskMetrics(model.tasks.values())
    for batch in batches:
        with torch.no_grad():
            metrics.update(model(batch["image"]), batch)
    with joint_step(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return metrics.compute()


class Normed(nn.Module):
    """A backbone with BatchNorm and a constant among its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.register_buffer("third", torch.tensor(1 / 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.two(self.norm(self.one(images)) * self.third)


def statistics_after(
    images: Sequence[Tensor], train_tasks: list[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Buffers of a fully fine-tuned model before and after it has seen these batches and shared its statistics."""
    torch.manual_seed(2)
    tasks, decoder = [bt.Depth("a"), bt.Depth("b")], bt.HRNetDecoder((2, 3))
    model = bt.MultiTaskModel(
        Normed(),
        tasks,
        decoder=decoder,
        train_backbone=True,
        train_tasks=train_tasks,
        levels=["one:norm", "two"],
        image_size=32,
    )
    module = MultiTaskModule(model, bt.WeightedSum(), Schedule())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        for batch in images:
            model.train()(batch)
    module._share_statistics()
    return before, dict(model.named_buffers())


def part(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {key: value[rows] for key, value in batch.items()}


def work(rank: int, folder: Path) -> None:
    """Runs in a process of its own; leaves `<rank>.pt`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    model, batch = model_and_batch()
    half = part(batch, slice(2 * rank, 2 * rank + 2))
    wrapped = DistributedDataParallel(Step(model), **ddp_options())
    result: dict[str, Any] = {}
    for again in range(2):  # the second step finds the gradients of the first set to None
        model.zero_grad()
        wrapped(half).backward()
        result[f"step {again}"] = gradients_of(model)
    result["per task"] = per_task_gradients(model, half)
    uneven = [part(batch, slice(index, index + 1)) for index in ((0, 1, 2) if rank == 0 else (3,))]
    result["metrics"] = metrics_of(model, uneven)
    torch.manual_seed(3 + rank)
    result["images"] = [torch.randn(2, 3, 32, 32) for _ in range(3)]
    result["statistics"] = statistics_after(result["images"])
    result["statistics of a"] = statistics_after(result["images"], ["a"])
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
