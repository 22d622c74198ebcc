"""Tied nodes: a tree whose nodes move as one is a shared set; untied, they part from there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.collate import Collate
from branchtune.training.module import MultiTaskModule
from branchtune.training.schedule import Schedule
from branchtune.training.tied import TiedNodes
from small_model import TREE, small_model


def batches(model: bt.MultiTaskModel) -> DataLoader[Any]:
    """Float64 in, so that two ways to add the same gradients agree to many digits."""
    torch.manual_seed(1)
    samples = [
        {
            "id": str(i),
            "image": torch.rand(3, 32, 32, dtype=torch.float64),
            "a": torch.rand(32, 32) + 1,
            "b": (torch.rand(32, 32) > 0.5).float(),
            "c": torch.randint(3, (32, 32)),
        }
        for i in range(4)
    ]
    return DataLoader(samples, batch_size=2, collate_fn=Collate(model.tasks.values()))


def train(model: bt.MultiTaskModel, epochs: int, tied: int) -> bt.MultiTaskModel:
    callbacks = []
    if tied:
        callbacks.append(TiedNodes(model, tied))
        callbacks[0].make_alike()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    module = MultiTaskModule(model, bt.WeightedSum(lr=1e-2, eps=1e-4), Schedule(warmup_epochs=0, kind="constant"))
    with pytest.warns():  # Lightning's on few workers and batches
        L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=callbacks, **quiet).fit(module, batches(model))
    return model


def first_node(model: bt.MultiTaskModel, level: int) -> dict[str, torch.Tensor]:
    return model.backbone.node_adapters(level, 0).state_dict()


def test_a_tied_tree_is_a_shared_set() -> None:
    tree, shared = small_model(), small_model(tree=bt.TaskTree.shared(["a", "b", "c"], 4))
    with torch.no_grad():
        for level in range(4):
            shared.backbone.node_adapters(level, 0).load_state_dict(first_node(tree, level))
        shared.decoders.load_state_dict(tree.decoders.state_dict())
    train(tree, 2, tied=2)
    train(shared, 2, tied=0)
    for level, groups in enumerate(tree.tree.levels):
        for group in range(len(groups)):
            for key, value in tree.backbone.node_adapters(level, group).state_dict().items():
                torch.testing.assert_close(value, first_node(shared, level)[key], rtol=0, atol=1e-10)
    for name, value in tree.decoders.state_dict().items():
        torch.testing.assert_close(value, shared.decoders.state_dict()[name], rtol=0, atol=1e-10)


def test_untied_nodes_part_from_where_they_were() -> None:
    tied, parted = train(small_model(), 1, tied=1), train(small_model(), 2, tied=1)
    last = len(TREE.levels) - 1
    for model, alike in ((tied, True), (parted, False)):
        one, two = (model.backbone.node_adapters(last, group).state_dict() for group in (0, 1))
        assert all(torch.equal(one[key], two[key]) for key in one) is alike


def test_a_run_with_tied_epochs_and_what_excludes_them(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["fit", str(finished), "--name=tied", "--quiet", "--tree.tied_epochs=1"]
    for change, message in (
        ("--tree.tied_epochs=-1", "tree.tied_epochs=-1: must be at least 0"),
        ("--optimizer=branchtune.AdaTask", "tree.tied_epochs adds up gradients, AdaTask keeps them apart by task"),
    ):
        assert main([*call, change]) == 2
        assert message in capsys.readouterr().err
    assert main(call) == 0


def test_nodes_at_rest_cannot_be_tied() -> None:
    with pytest.raises(bt.UserError, match=r"tree.tied_epochs ties all nodes of a level, but some do not train"):
        TiedNodes(copy.deepcopy(small_model(train_tasks=["a"])), 1)
