"""`measure_affinity` end to end: brute force, planted tasks, the user's model, bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from affinity_cases import PLAIN_LEVELS, Fit, Plain, batches, drop_labels, swin
from branchtune.adapters.bottleneck import Bottleneck
from branchtune.adapters.lora import LoRA
from branchtune.affinity import Affinity, measure_affinity
from branchtune.backbone.spec import Site
from branchtune.decoders.light import LightDecoder
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.planning import plan
from branchtune.reach import Nodes
from branchtune.tasks.task import Task

SMALL = LightDecoder(dim=8)
TASKS = [Fit("a"), Fit("b"), Fit("c")]


def plain() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


def measure(tasks: list[Task], loader: Any, backbone: nn.Module | None = None, **kwargs: Any) -> Affinity:
    if backbone is None:
        backbone = plain()
        kwargs.setdefault("levels", PLAIN_LEVELS)
        kwargs.setdefault("image_size", 32)
    return measure_affinity(backbone, tasks, loader, **{"decoder": SMALL, "decoder_steps": 2, "samples": 16, **kwargs})


def decoders_of(tasks: list[Task], seeds: dict[str, int]) -> dict[str, Tensor]:
    """Decoder states, equal for tasks of one seed."""
    state = {}
    for task in tasks:
        torch.manual_seed(seeds[task.name])
        module = SMALL.build([8, 8, 8], 2)
        state.update({f"{task.name}.{name}": value for name, value in module.state_dict().items()})
    return state


def test_equals_brute_force_with_autograd_on_the_users_own_layers() -> None:
    backbone, loader = plain().double(), batches(TASKS, images=6, batch=4)
    drop_labels(loader, "b", [2])
    state = decoders_of(TASKS, {"a": 1, "b": 2, "c": 3})
    found = measure(TASKS, loader, backbone, levels=PLAIN_LEVELS, image_size=32, source="weights", decoders=state)
    model = MultiTaskModel(
        backbone, TASKS, decoder=SMALL, train_backbone=True, levels=PLAIN_LEVELS, image_size=32
    ).double()
    model.decoders.load_state_dict(state)
    model.eval()
    weights = [p for n, p in model.backbone.frozen.named_parameters() if n in ("first.weight", "third.weight")]
    samples = [(b, i) for b in loader for i in range(len(b["image"]))]
    grads: dict[tuple[str, int], Tensor] = {}
    for n, (batch, i) in enumerate(samples):
        for task in TASKS:
            target = batch[task.name][i : i + 1]
            if target.isnan().all():
                continue
            loss = task.loss(model(batch["image"][i : i + 1].double(), [task.name])[task.name], target)
            grads[task.name, n] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
    # The default LoRA takes the 1x1 convolutions, and level 1, which has none, its dense convolution.
    names = {"first.weight": slice(0, 64), "third.weight": slice(64, 128)}
    for level, part in ((0, names["first.weight"]), (2, names["third.weight"])):
        for t, s in itertools.product(range(3), repeat=2):
            values = [
                torch.cosine_similarity(g[part], h[part], dim=0).item()
                for (a, i), g in grads.items()
                for (b, j), h in grads.items()
                if i != j and a == TASKS[t].name and b == TASKS[s].name
            ]
            assert found.per_level[level, t, s] == pytest.approx(np.mean(values), abs=1e-10)
    assert found.samples == {"a": 6, "b": 5, "c": 6}


@pytest.mark.parametrize("normalize", ["none", "elementwise", "per_tensor"])
@pytest.mark.parametrize("source", ["adapters", "weights"])
def test_planted_duplicates_agree_and_opposites_disagree(normalize: Any, source: Any) -> None:
    tasks: list[Task] = [Fit("base"), Fit("copy"), Fit("opposite", sign=-1.0)]
    loader = batches(tasks, images=12, noise=0.004)
    for batch in loader:
        for task in tasks:
            batch[task.name] = torch.full_like(batch[task.name], 2.0)
    state = decoders_of(tasks, dict.fromkeys(("base", "copy", "opposite"), 5))
    found = measure(tasks, loader, normalize=normalize, source=source, decoders=state)
    expected = np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    np.testing.assert_allclose(found.overall, expected, atol=0.1)
    np.testing.assert_allclose(found.per_level, np.stack([expected] * 3), atol=0.1)
    assert (found.overall_error < 0.05).all()


def test_the_planned_tree_separates_planted_clusters() -> None:
    tasks: list[Task] = [Fit("a1"), Fit("b1"), Fit("a2"), Fit("b2"), Fit("b3")]
    loader = batches(tasks, images=32, noise=0.2)
    for batch in loader:
        for task in tasks:
            batch[task.name] = torch.full_like(batch[task.name], 2.0)
    state = decoders_of(tasks, {"a1": 1, "a2": 1, "b1": 8, "b2": 8, "b3": 8})
    found = measure(tasks, loader, backbone=swin(), samples=32, adapter=LoRA(r=4), decoders=widen(state))
    clusters = (("a1", "a2"), ("b1", "b2", "b3"))
    assert plan(found, groups=(1, 1, 2, 2)).levels[2:] == (clusters, clusters)
    tree = plan(found, budget=1.6)
    assert set(tree.levels[-1]) == set(clusters)


def widen(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Decoder states for the channels of the Swin, from the same seeds: its laterals repeat the plain ones."""
    channels = {"0": 16, "1": 32, "2": 64, "3": 128}
    wide = {}
    for name, value in state.items():
        if "laterals" not in name:
            wide[name] = value
            continue
        task, _, index, kind = name.split(".")
        for level, width in channels.items():
            if index == "0":
                key = f"{task}.laterals.{level}.{kind}"
                wide[key] = value.repeat(1, width // 8, 1, 1) if kind == "weight" else value
    return wide


def test_permuting_the_tasks_permutes_the_matrix() -> None:
    loader = batches(TASKS)
    found, other = measure(TASKS, loader), measure([TASKS[2], TASKS[0], TASKS[1]], loader)
    assert other.tasks == ("c", "a", "b")
    order = np.ix_([2, 0, 1], [2, 0, 1])
    for name in ("overall", "overall_error"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name)[order])
    np.testing.assert_array_equal(other.per_level[1], found.per_level[1][order])


def test_deterministic_for_a_seed_with_a_shuffling_loader() -> None:
    samples = [{key: value[i] for key, value in batch.items()} for batch in batches(TASKS) for i in range(4)]
    loader: Any = DataLoader(samples, batch_size=4, shuffle=True)
    one, two, other = (measure(TASKS, loader, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.overall, two.overall)
    np.testing.assert_array_equal(one.per_level_error, two.per_level_error)
    assert one.seeds == (0,)
    assert not np.array_equal(one.overall, other.overall)


@pytest.mark.parametrize("source", ["adapters", "weights"])
def test_the_users_model_and_random_state_are_untouched(source: Any) -> None:
    backbone = swin(drop_path_rate=0.2)
    backbone.train()
    backbone.layers[0].eval()  # type: ignore[index, union-attr]
    backbone.norm.weight.requires_grad_(False)  # type: ignore[union-attr]

    def state() -> dict[str, Any]:
        return {
            "weights": {k: v.clone() for k, v in backbone.state_dict().items()},
            "flags": [p.requires_grad for p in backbone.parameters()],
            "grads": [p.grad for p in backbone.parameters()],
            "modes": [m.training for m in backbone.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.modules()],
            "storage": [p.data_ptr() for p in backbone.parameters()],
        }

    before, random = state(), torch.get_rng_state()
    measure(TASKS, batches(TASKS, images=4), backbone, source=source, adapter=LoRA(r=2))
    after = state()
    for name, weight in before.pop("weights").items():
        assert torch.equal(weight, after["weights"][name])
    after.pop("weights")
    assert after == before
    assert torch.equal(random, torch.get_rng_state())


def test_given_decoders_are_used_and_left_alone() -> None:
    state = decoders_of(TASKS, {"a": 1, "b": 2, "c": 3})
    decoders = nn.ModuleDict({task.name: SMALL.build([8, 8, 8], 2) for task in TASKS})
    decoders.load_state_dict(state)
    found = measure(TASKS, batches(TASKS), decoders=decoders)
    assert decoders.training
    assert found.cost.fit_images == 0
    assert found.decoders is not None
    for name, value in decoders.state_dict().items():
        assert torch.equal(value, found.decoders[name])
        assert torch.equal(value, state[name])
    again = measure(TASKS, batches(TASKS), decoders=found.decoders)
    np.testing.assert_array_equal(again.overall, found.overall)


def test_other_adapter_families_are_measured_too() -> None:
    found = measure(TASKS[:2], batches(TASKS[:2]), swin(), adapter=Bottleneck(reduction=8))
    assert found.per_level.shape == (4, 2, 2)
    assert (np.diagonal(found.per_level, axis1=1, axis2=2) != 0).all()


class Late(LoRA):
    """LoRA that leaves level 0 as it is."""

    def apply(self, site: Site, nodes: Nodes, inputs: Tensor, output: Tensor) -> Tensor:
        return output if site.level == 0 else super().apply(site, nodes, inputs, output)


def test_a_lora_with_an_update_of_its_own_is_measured_with_it() -> None:
    found = measure(TASKS[:2], batches(TASKS[:2]), adapter=Late(r=2))
    assert (found.per_level[0] == 0).all()
    assert (found.per_level[1:] != 0).all()


def test_cost_and_progress_are_told() -> None:
    seen: list[tuple[str, int, int]] = []
    found = measure(TASKS, batches(TASKS, images=8, batch=3), samples=7, progress=lambda *step: seen.append(step))
    assert seen == [
        ("decoders", 1, 2),
        ("decoders", 2, 2),
        ("affinity", 3, 7),
        ("affinity", 6, 7),
        ("affinity", 7, 7),
    ]
    assert found.samples == {"a": 7, "b": 7, "c": 7}
    cost = found.cost
    assert (cost.images, cost.gradients, cost.fit_images) == (7, 21, 6)
    assert cost.share(170) == pytest.approx(34 / 340)
    assert "as many passes as training on 17 images" in str(found)


def test_a_loader_that_runs_out_gives_what_it_has_and_missing_keys_are_missing_labels() -> None:
    loader = batches(TASKS, images=8, batch=4)
    del loader[0]["b"]
    found = measure(TASKS, loader, samples=100)
    assert found.samples == {"a": 8, "b": 4, "c": 8}


def test_side_inputs_of_the_backbone_come_from_the_batch() -> None:
    class Masked(Plain):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            assert mask is not None
            return super().forward(x * mask[:, None, None, None])

    torch.manual_seed(0)
    loader = batches(TASKS)
    for batch in loader:
        batch["mask"] = torch.rand(4) + 0.5
    found, plain_result = (
        measure(
            TASKS,
            loader,
            Masked(),
            levels=PLAIN_LEVELS,
            image_size=32,
            source=source,
            example_inputs={"mask": torch.ones(1)},
        )
        for source in ("adapters", "weights")
    )
    assert found.overall.shape == plain_result.overall.shape == (3, 3)


def no_labels(loader: list[dict[str, Any]]) -> Any:
    drop_labels(loader, "b", range(8))
    return loader


def one_label(loader: list[dict[str, Any]]) -> Any:
    drop_labels(loader, "b", range(7))
    return loader


def bad_image(loader: list[dict[str, Any]]) -> Any:
    loader[1]["image"][2] = torch.inf
    return loader


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no label": (no_labels, {}, "task 'b' has 0 labelled samples among the 8 images"),
    "one label": (one_label, {}, "task 'b' has 1 labelled samples"),
    "not finite": (bad_image, {"decoder_steps": 1}, "gradient of task 'a' is not finite on sample 's6'"),
    "empty": (lambda loader: [], {}, "the loader gives no batch"),
    "one sample": (lambda loader: loader, {"samples": 1}, "samples=1"),
    "kind": (lambda loader: loader, {"normalize": "elementwize"}, "did you mean 'elementwise'"),
    "source": (lambda loader: loader, {"source": "weight"}, "did you mean 'weights'"),
    "decoders": (
        lambda loader: loader,
        {"decoders": decoders_of(TASKS[:2], {"a": 1, "b": 2})},
        "decoders given do not fit.*'c' *|Missing key.*c.laterals",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    change, arguments, message = BAD[case]
    with pytest.raises(UserError, match=message):
        measure(TASKS, change(batches(TASKS)), **arguments)


@pytest.mark.parametrize("normalize", ["none", "elementwise"])
def test_two_tasks_labelled_on_separate_halves(normalize: Any) -> None:
    loader = batches(TASKS[:2], images=8)
    drop_labels(loader, "a", range(4))
    drop_labels(loader, "b", range(4, 8))
    found = measure(TASKS[:2], loader, normalize=normalize)
    assert np.isfinite(found.overall).all()
    assert found.samples == {"a": 4, "b": 4}
