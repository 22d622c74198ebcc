"""A trained model with a task more or a task less: what was there stays, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import branchtune as bt
from branchtune.decoder_fit import fit_decoders
from branchtune.errors import UserError
from branchtune.extension import continued_nodes
from branchtune.route import Route
from naive_twin import NaiveTwin
from small_model import TREE, small_swin
from trained_models import OLD, assert_continued, assert_same, data_of, images, old_name, step, trained

HRNET = bt.HRNetDecoder(widths=(8, 8, 8, 8), expansion=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "like", "levels"),
    [("0-first", "c", 3), ("0-first", "b", 0), ("b-middle", "a", 2), ("z-last", "a", 3), ("z-last", "c", 4)],
)
def test_old_tensors_and_outputs_keep_their_bits(name: str, like: str, levels: int, dtype: torch.dtype) -> None:
    model = copy.deepcopy(trained()).to(dtype)
    x = images(model, 3)
    with torch.no_grad():
        before = model(x)
        state = {key: data_of(value) for key, value in model.state_dict().items()}
        grown = model.add_task(bt.Normals(name), like=like, levels=levels)
        assert_same(before, grown(x, tasks=OLD))
        assert_same(before, model(x))
        assert set(grown(x)) == {*OLD, name}
    assert state == {key: data_of(value) for key, value in model.state_dict().items()}
    new = assert_continued(model, grown)
    assert {key.split(".")[0] + "." + key.split(".")[2] for key in new if key.startswith("backbone")} == {
        f"backbone.{level}/{name}" for level in range(levels, 4)
    }
    assert {key.split(".")[1] for key in new if key.startswith("decoders")} == {name}
    assert grown.tree.path(name)[:levels] == grown.tree.path(like)[:levels]
    assert {parameter.dtype for parameter in grown.parameters()} == {dtype}
    assert not grown.training


@pytest.mark.parametrize("name", ["0-first", "b-middle", "z-last"])
@pytest.mark.parametrize("like", OLD)
def test_a_task_that_joins_does_not_change_how_the_others_are_folded(name: str, like: str) -> None:
    for levels in range(5):
        tree = TREE.with_task(name, like, levels)
        route = Route.of(tree, OLD)
        assert Route.of(tree.restrict(OLD), OLD) == Route.of(TREE, OLD)
        assert (route.parents, route.slot) == (Route.of(TREE, OLD).parents, Route.of(TREE, OLD).slot)


def test_the_extended_model_equals_its_naive_twin() -> None:
    grown = trained().add_task(bt.Normals("n"), like="b", levels=3, init="copy", train="all")
    for adapters in grown.backbone.adapters.values():
        for parameter in adapters.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    x = images(grown)
    expected = NaiveTwin(grown, small_swin_of(grown))(x)
    for task, output in grown(x).items():
        torch.testing.assert_close(output, expected[task], rtol=1e-10, atol=1e-10)


def small_swin_of(model: bt.MultiTaskModel) -> torch.nn.Module:
    backbone = small_swin().to(torch.float64).eval()
    backbone.load_state_dict(model.backbone.frozen.state_dict())
    return backbone


def test_fresh_nodes_leave_the_frozen_backbone_unchanged() -> None:
    model = trained()
    plain = bt.MultiTaskModel(model.backbone.frozen, [bt.Normals("n")], spec=model.spec).eval()
    grown = model.add_task(bt.Normals("n"), like="a", levels=0)
    with torch.no_grad():
        x = images(model)
        for own, frozen in zip(grown.backbone(x, ["n"])["n"], plain.backbone(x)["n"], strict=True):
            assert torch.equal(own, frozen)


@pytest.mark.parametrize("levels", [0, 2, 3])
@pytest.mark.parametrize("adapter", [bt.LoRA(r=2), bt.Bottleneck(reduction=2)], ids=["lora", "bottleneck"])
def test_copied_nodes_compute_what_those_of_the_other_task_compute(levels: int, adapter: bt.Adapter) -> None:
    model = trained(adapter=adapter)
    grown = model.add_task(bt.Normals("n"), like="b", levels=levels, init="copy")
    with torch.no_grad():
        x = images(model)
        for own, other in zip(grown.backbone(x, ["n"])["n"], grown.backbone(x, ["b"])["b"], strict=True):
            assert torch.equal(own, other)
    own, other = (grown.backbone.adapters[f"3/{name}"].state_dict() for name in "nb")
    assert all(torch.equal(own[key], other[key]) and own[key].data_ptr() != other[key].data_ptr() for key in other)


def test_sharing_everything_adds_a_decoder_only() -> None:
    model = trained()
    grown = model.add_task(bt.ImageClassification("kind", 5), like="c", levels=4)
    before, after = model.count_parameters(), grown.count_parameters()
    assert {key for key in before if before[key] != after[key]} == {"decoders"}
    assert grown.count_parameters(trained_only=True) == {
        "adapters": 0,
        "extras": 0,
        "decoders": after["decoders"] - before["decoders"],
        "backbone": 0,
    }


def test_only_frozen_weights_share_memory_with_the_old_model() -> None:
    model = trained(extras=("norms",))
    grown = model.add_task(bt.Normals("n"), like="a", levels=2)
    theirs = dict(model.backbone.frozen.named_parameters())
    for name, parameter in grown.backbone.frozen.named_parameters():
        shared = parameter.data_ptr() == theirs[name].data_ptr()
        assert shared != (name in grown.backbone.extra_names), name
    own = {p.data_ptr() for part in (model.backbone.adapters, model.decoders) for p in part.parameters()}
    assert not own & {p.data_ptr() for part in (grown.backbone.adapters, grown.decoders) for p in part.parameters()}


@pytest.mark.parametrize("call", [["n"], None], ids=["the new task", "all tasks"])
@pytest.mark.parametrize("arguments", [{}, {"extras": ("norms",)}, {"decoder": HRNET}], ids=str)
def test_training_what_is_new_moves_nothing_else(arguments: dict[str, Any], call: list[str] | None) -> None:
    model = trained(**arguments)
    grown = model.add_task(bt.Normals("n"), like="a", levels=2)
    trains = {name for name, parameter in grown.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[2] for name in trains if name.startswith("backbone")} == {"2/n", "3/n"}
    assert {name.split(".")[1] for name in trains if name.startswith("decoders")} == {"n"}
    assert trains == {name for name, _ in grown.named_parameters() if grown.trains(name)}
    before = {name: tensor.clone() for name, tensor in grown.state_dict().items()}
    with torch.no_grad():
        expected = model(images(model))
    step(grown, call)
    assert assert_continued(model, grown) >= trains
    assert all(not torch.equal(grown.state_dict()[name], before[name]) for name in trains)
    with torch.no_grad():
        assert_same(expected, grown(images(model), tasks=OLD))


def test_fitting_decoders_fits_the_new_one_only() -> None:
    model = trained(decoder=HRNET)
    grown = model.add_task(bt.Depth("n"), like="a", levels=2)
    targets = {name: torch.ones(2, 32, 32, dtype=torch.float64) for name in ("a", "n")}
    losses: list[dict[str, float]] = []
    batch = {"id": ["x", "y"], "image": images(grown), **targets}
    fit_decoders(grown, [batch], 3, 1e-2, on_step=lambda _, found: losses.append(found))
    assert [set(found) for found in losses] == [{"n"}] * 3
    assert losses[-1]["n"] < losses[0]["n"]
    assert_continued(model, grown)


def test_train_all_trains_everything_again() -> None:
    model = trained(extras=("norms",))
    partial = model.add_task(bt.Normals("n"), like="a", levels=2)
    for whole in (model.add_task(bt.Normals("n"), like="a", levels=2, train="all"), partial.training_only(None)):
        assert_continued(model, whole)
        assert whole.count_parameters(trained_only=True) == {
            owner: count for owner, count in whole.count_parameters().items() if owner != "frozen"
        }
        assert whole.count_parameters(trained_only=True)["extras"] > 0
    step(whole)
    assert torch.equal(partial.decoders["a"].output.weight, model.decoders["a"].output.weight)  # type: ignore[arg-type]


def test_a_shared_node_trains_when_all_its_tasks_do() -> None:
    model = trained().training_only(["b", "a"])
    assert model.train_tasks == ("a", "b")
    trains = {key for key in model.backbone.users if model.trains(f"backbone.adapters.{key}.x")}
    assert trains == {"2/a+b", "3/a", "3/b"}


def test_requires_grad_follows_the_plan_and_an_optimizer_refuses_what_is_at_rest() -> None:
    grown = trained().add_task(bt.Normals("n"), like="a", levels=2)
    planned = {name: parameter.requires_grad for name, parameter in grown.named_parameters()}
    grown.requires_grad_(False).requires_grad_(True)
    assert planned == {name: parameter.requires_grad for name, parameter in grown.named_parameters()}
    grown.decoders["a"].requires_grad_(True)
    with pytest.raises(UserError, match=r"'decoders.a.* is at rest by the plan, which trains n only.*training_only"):
        bt.WeightedSum().build(grown)


def test_a_copy_keeps_the_plan() -> None:
    twin = copy.deepcopy(trained().add_task(bt.Normals("n"), like="a", levels=2))
    assert twin.train_tasks == ("n",)
    assert {name.split(".")[1] for name, p in twin.decoders.named_parameters("decoders") if p.requires_grad} == {"n"}


@pytest.mark.parametrize("name", OLD)
def test_removing_keeps_the_outputs_of_the_rest(name: str) -> None:
    model = trained(extras=("norms",), decoder=HRNET)
    rest = [task for task in OLD if task != name]
    pruned = model.remove_task(name)
    with torch.no_grad():
        assert_same(model(images(model), tasks=rest), pruned(images(model)))
    assert list(pruned.tasks) == list(pruned.decoders) == rest
    assert pruned.tree == TREE.restrict(rest)
    assert set(pruned.backbone.adapters) == {node.key for node in pruned.tree.nodes()}
    assert len(list(model.tree.nodes())) - len(pruned.backbone.adapters) == {"a": 1, "b": 1, "c": 2}[name]
    names, state = continued_nodes(model.tree, pruned.tree), model.state_dict()
    for key, tensor in pruned.state_dict().items():
        assert data_of(tensor) == data_of(state[old_name(key, names)]), key


@pytest.mark.parametrize("name", ["0-first", "z-last"])
def test_adding_and_removing_gives_the_same_model(name: str) -> None:
    model = trained(extras=("norms",))
    again = model.add_task(bt.Normals(name), like="b", levels=1).remove_task(name)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(data_of(before[key]) == data_of(after[key]) for key in before)
    assert again.train_tasks == model.train_tasks
    assert model.training_only(["a", "b"]).remove_task("a").train_tasks == ("b",)


def test_tasks_are_added_to_an_extended_model() -> None:
    model = trained()
    twice = model.add_task(bt.Normals("n"), like="a", levels=2).add_task(bt.Depth("m"), like="n", levels=3)
    assert_continued(model, twice)
    assert twice.tree.levels[2] == (("a", "b"), ("c",), ("m", "n"))
    assert twice.train_tasks == ("m",)
    with torch.no_grad():
        assert_same(model(images(model)), twice(images(model), tasks=OLD))


def test_an_extended_model_is_saved_and_loaded(tmp_path: Path) -> None:
    grown = trained(extras=("norms",)).add_task(bt.Normals("n"), like="a", levels=2)
    grown.save_pretrained(tmp_path / "out")
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=grown.backbone.frozen)
    with torch.no_grad():
        assert_same(grown(images(grown)), loaded(images(grown)))
    assert loaded.train_tasks == ("n",)
    trains = {name: parameter.requires_grad for name, parameter in grown.named_parameters()}
    assert trains == {name: parameter.requires_grad for name, parameter in loaded.named_parameters()}
    assert '"format": 2' in (tmp_path / "out" / "adapter_config.json").read_text()
    grown.training_only(None).save_pretrained(tmp_path / "out")
    assert '"format": 1' in (tmp_path / "out" / "adapter_config.json").read_text()
