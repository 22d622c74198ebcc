"""Models that cannot fork, and what cannot be added, removed or trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import branchtune as bt
from branchtune.errors import UserError
from small_model import small_model
from trained_models import OLD, assert_continued, assert_same, images, step, trained


def comb() -> bt.MultiTaskModel:
    return trained(tree=None, adapter=bt.Comb(r=2, r_task=2))


@pytest.mark.parametrize("init", ["fresh", "copy"])
def test_a_comb_gives_the_new_task_streams_of_its_own(init: Any) -> None:
    model = comb()
    grown = model.add_task(bt.Normals("n"), like="a", levels=4, init=init)
    new = assert_continued(model, grown)
    assert {key.split(".")[2] for key in new if key.startswith("backbone")} == {f"{i}/n/stream" for i in range(4)}
    with torch.no_grad():
        x = images(model)
        assert_same(model(x), grown(x, tasks=OLD))
        own, other = (grown.backbone(x, [name])[name] for name in "na")
        assert all(torch.equal(one, two) for one, two in zip(own, other, strict=True)) == (init == "copy")
        assert_same(model(x), grown.remove_task("n")(x))
    step(grown)
    assert_continued(model, grown)


@pytest.mark.parametrize("arguments", [{}, {"extras": ("norms",)}, {"train_backbone": True}], ids=str)
def test_a_model_without_adapters_takes_a_decoder(arguments: dict[str, Any]) -> None:
    model = trained(tree=None, adapter=None, **arguments)
    grown = model.add_task(bt.Normals("n"), like="a", levels=4)
    assert {key.split(".")[1] for key in assert_continued(model, grown)} == {"n"}
    assert grown.count_parameters(trained_only=True)["backbone"] == 0
    step(grown)
    assert_continued(model, grown)
    with torch.no_grad():
        assert_same(model(images(model)), grown(images(model), tasks=OLD))
    whole = grown.training_only(None)
    assert (whole.count_parameters(trained_only=True)["backbone"] > 0) == ("train_backbone" in arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": bt.Normals("a")}, r"the model already has a task 'a': give the new one another name"),
        ({"like": "d"}, r"unknown task 'd'.*known: a, b, c"),
        ({"like": None}, r"unknown task None"),
        ({"levels": 5}, r"levels=5: a new task shares 0 to 4 levels of this tree, 4 for all"),
        ({"levels": -1}, r"levels=-1: a new task shares 0 to 4"),
        ({"levels": 1.5}, r"levels=1.5: a new task shares 0 to 4"),
        ({"levels": True}, r"levels=True"),
        ({"task": "depth"}, r"task='depth' is of type str: pass an instance, such as Depth\('depth'\)"),
        ({"task": bt.Depth}, r"task=Depth is a class: pass an instance"),
        ({"task": None}, r"task=None: pass a task"),
        ({"task": bt.Depth("train")}, r"a task cannot be named 'train'"),
        ({"init": "zero"}, r"unknown init 'zero'.*copy, fresh"),
        ({"train": "old"}, r"unknown train 'old'.*all, new"),
    ],
)
def test_what_cannot_be_added(arguments: dict[str, Any], message: str) -> None:
    model = trained()
    with pytest.raises(UserError, match=message) as error:
        model.add_task(**{"task": bt.Normals("n"), "like": "a", "levels": 2, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"adapter": None}, r"the model has no adapters"),
        ({"adapter": None, "train_backbone": True}, r"the model has no adapters"),
    ],
    ids=["decoders", "full"],
)
def test_a_model_that_cannot_fork_says_so(arguments: dict[str, Any], reason: str) -> None:
    model = small_model(tree=None, **arguments)
    message = rf"^{reason}, its tree cannot fork: a new task can only share all levels \(levels=4\)$"
    with pytest.raises(UserError, match=message):
        model.add_task(bt.Normals("n"), like="a", levels=3)


def test_what_cannot_be_removed_or_trained() -> None:
    model = trained()
    with pytest.raises(UserError, match=r"unknown task 'd'"):
        model.remove_task("d")
    with pytest.raises(UserError, match=r"unknown task \['a'\]"):
        model.remove_task(["a"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'c' is the only task: a model needs at least one"):
        model.remove_task("a").remove_task("b").remove_task("c")
    for tasks, message in (([], "train_tasks="), ("a", "train_tasks='a': pass a list"), (["d"], "in train_tasks 'd'")):
        with pytest.raises(UserError, match=message):
            model.training_only(tasks)
