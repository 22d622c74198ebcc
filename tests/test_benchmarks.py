"""The benchmarks' own arithmetic: the limit has the work that it says, quotients are taken round by round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.bench import Bench
from benchmarks.limit import FrozenWork, PlainPerGroup
from benchmarks.memory import peak
from benchmarks.timing import Ratio, by_turns
from benchmarks.workloads import tree

GROUPS = (1, 1, 2, 4)


@pytest.mark.parametrize("kind", [FrozenWork, PlainPerGroup])
@pytest.mark.parametrize("name", ["test_vit", "swin"])
def test_the_limits_do_the_levels_work_once_per_group(kind: type, name: str) -> None:
    options = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2, "img_size": 32}
    backbone = (
        timm.create_model("test_vit", img_size=32)
        if name == "test_vit"
        else timm.create_model("swin_tiny_patch4_window7_224", **options)
    )
    spec = bt.trace_backbone(backbone.eval(), image_size=32)
    work = kind(backbone, spec, GROUPS, torch.rand(3, 3, 32, 32))
    with FlopCounterMode(display=False) as counter:
        work()
    levels = sum(count * level.macs for count, level in zip(GROUPS, spec.levels, strict=True))
    assert counter.get_total_flops() // 2 == 3 * (spec.stem_macs + levels)


def test_ratios_are_medians_over_rounds() -> None:
    assert Ratio.of([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == Ratio(2.0, 1.5, 2.5)


def test_calls_run_by_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = by_turns(calls, 2, torch.device("cpu"))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def call() -> None:
        for _ in range(3):
            torch.empty(1000, dtype=torch.float64).fill_(1.0)

    assert peak(call, torch.device("cpu")) == 8000


def test_the_tree_of_a_shape_has_its_counts() -> None:
    assert [tree(shape).group_counts for shape in ((1, 1, 2, 4), (1, 2, 3, 4))] == [(1, 1, 2, 4), (1, 2, 3, 4)]


def test_goals_know_on_which_side_they_pass() -> None:
    bench = Bench(torch.device("cpu"), 2, False, say=lambda line: None)
    bench.goal("low", 1.0, 0.9)
    bench.goal("high", 2.0, Ratio(1.9, 1.8, 2.1), at_least=True)
    assert [goal.passed for goal in bench.goals] == [True, False]
