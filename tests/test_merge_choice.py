"""Which levels are merged: the cost model, the user's word against it, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import branchtune as bt
from branchtune.merging.choice import LevelFacts, choose
from small_model import TREE, small_model

MODEL = small_model(adapter=bt.LoRA(r=4, target_modules=["fc1"]))  # groups 1-1-2-3
MANY = 10**6  # images per call: operations cost nothing, multiply-accumulates everything


def merged_levels(model: bt.MergedModel) -> list[int]:
    return [choice.level for choice in model.choices if choice.merged]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [("none", []), ([3, 1], [1, 3]), (range(2), [0, 1])],
    ids=str,
)
def test_the_user_chooses(levels: Any, expected: list[int]) -> None:
    assert merged_levels(MODEL.merge(levels)) == expected


def test_auto_merges_levels_of_one_group_and_others_where_it_pays() -> None:
    one, many = MODEL.merge(batch_size=1), MODEL.merge(batch_size=MANY)
    assert merged_levels(one) == [0, 1]
    assert merged_levels(many) == [0, 1, 2, 3]
    assert "running group by group would cost about" in str(one.choices[3])
    assert "saves about" in str(many.choices[3])
    for choice in many.choices[:2]:
        assert (choice.parameters_copied, choice.bytes_copied) == (0, 0)


def test_memory_bounds_the_copies() -> None:
    everything = MODEL.merge(batch_size=MANY)
    of_level = {choice.level: choice.bytes_copied for choice in everything.choices}
    assert of_level == {0: 0, 1: 0, 2: 1 * 32 * 128 * 8, 3: 2 * 64 * 256 * 8}
    assert merged_levels(MODEL.merge(batch_size=MANY, memory_limit=0)) == [0, 1]
    tight = MODEL.merge(batch_size=MANY, memory_limit=of_level[3] - 1)
    assert merged_levels(tight) == [0, 1, 2]
    assert "are beyond the 0.2 MB left of 0.3 MB that all copies may take" in str(tight.choices[3])
    with pytest.raises(bt.UserError, match="copies of the weights take 294,912 bytes, memory_limit is 294,911: raise"):
        MODEL.merge("all", memory_limit=sum(of_level.values()) - 1)
    assert merged_levels(MODEL.merge("all", memory_limit=sum(of_level.values()))) == [0, 1, 2, 3]


def test_a_level_that_memory_has_no_room_for_says_what_is_left() -> None:
    fact = LevelFacts(0, 2, 4, 0, 10**9, 10**8, 0, parameters=10**7, size=4)
    facts = [replace(fact, level=level) for level in range(2)]
    merged, live = choose(facts, None, 5 * 10**7, MANY, "cpu", 0)
    assert merged.merged
    assert live.reason == "copies of 40.0 MB are beyond the 10.0 MB left of 50.0 MB that all copies may take"


def test_the_text_says_what_was_copied_and_saved_and_why() -> None:
    lines = MODEL.merge([0, 3]).describe().splitlines()
    macs = {node.key: cost.adapter_macs for node, cost in MODEL.cost().nodes}
    assert lines == [
        f"level 0 (1 group): merged, copies 0 parameters (0.0 MB), saves {macs['0/a+b+c']:,} MACs per image: asked for",
        "level 1 (1 group): live, not asked for",
        "level 2 (2 groups): live, not asked for",
        f"level 3 (3 groups): merged, copies 32,768 parameters (0.3 MB), saves {3 * macs['3/a']:,} MACs per image: "
        "asked for",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": "al"}, "unknown levels 'al': did you mean 'all'"),
        ({"levels": 2}, "levels=2: use 'auto', 'all', 'none' or a list of level numbers"),
        ({"levels": [4]}, "levels names level 4, the model has levels 0 to 3"),
        ({"levels": [True]}, "a level must be a whole number, got True"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"memory_limit": -1}, "memory_limit=-1: must be at least 0 bytes"),
        ({"memory_limit": "1GB"}, "memory_limit must be a whole number"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(bt.UserError, match=message):
        MODEL.merge(**arguments)


def test_levels_without_adapters_need_no_merging() -> None:
    model = small_model(adapter=bt.LoRA(r=2, target_modules=["layers.3.blocks.0.mlp.fc1"]), tree=TREE)
    merged = model.merge("all")
    assert merged_levels(merged) == [3]
    assert str(merged.choices[0]) == "level 0 (1 group): live, it has no adapters"


def test_a_device_that_computes_while_operations_are_issued_prefers_the_fold_longer() -> None:
    """A Swin stage: launches bound a GPU, products bound a CPU."""
    costs = {"operations": 700, "frozen_macs": 2 * 10**9, "adapter_macs": 10**8, "once_macs": 0}
    fact = LevelFacts(2, 2, sites=24, **costs, parameters=1, size=4)
    merged = {
        device: [batch for batch in (1, 16, 256) if choose([fact], None, None, batch, device, 10**9)[0].merged]
        for device in ("cpu", "cuda")
    }
    assert merged == {"cpu": [16, 256], "cuda": [256]}


@pytest.mark.parametrize(
    ("costs", "batches"),
    [
        # a level of ViT-S: 303 ms with all levels merged against 271 at batch 1, on two CPU cores
        ((12, 129, 1135173888, 58097664, 5308416), [8]),
        # the last stage of PVTv2-B0: with the others 213 ms against 129 at batch 1
        ((10, 118, 98495488, 6823936, 1572864), []),
        # the first stage of Swin-T, a fifth of whose products are those of the adapters
        ((8, 139, 752640000, 154140672, 221184), [1, 8]),
    ],
    ids=["ViT-S", "PVTv2-B0", "Swin-T"],
)
def test_four_groups_are_merged_where_that_was_measured_to_be_faster(
    costs: tuple[int, ...], batches: list[int]
) -> None:
    sites, operations, frozen, adapters, parameters = costs
    fact = LevelFacts(3, 4, sites, operations, frozen, adapters, once_macs=0, parameters=parameters, size=4)
    assert [batch for batch in (1, 8) if choose([fact], None, None, batch, "cpu", 10**9)[0].merged] == batches
