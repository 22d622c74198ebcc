"""The benchmarks' own arithmetic: the limits have the work that they say, quotients are taken round by round."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.affinity_cost import both, difference
from benchmarks.bench import Bench
from benchmarks.goal import Goal, largest
from benchmarks.limit import FrozenStep, FrozenWork, PlainPerGroup
from benchmarks.memory import peak, resident
from benchmarks.operations import operations
from benchmarks.step import weighted_square
from benchmarks.timing import Effort, Quartiles, by_turns
from benchmarks.workloads import TREES, tree

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


def test_the_limit_of_a_training_step_goes_back_to_the_input_of_every_level() -> None:
    work = small().training
    backbone, spec = work.traced("ViT-S")
    step = FrozenStep(backbone, spec, GROUPS, work.images(2))
    with FlopCounterMode(display=False) as counter:
        step()
    levels = 2 * sum(count * level.macs for count, level in zip(GROUPS, spec.levels, strict=True))
    assert 2 * levels <= counter.get_total_flops() // 2 - 2 * spec.stem_macs <= 3 * levels
    assert not any(parameter.requires_grad for parameter in step.backbone.parameters())


def test_quotients_are_taken_round_by_round() -> None:
    assert Quartiles.quotient([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == Quartiles(2.0, 1.5, 2.5)


def test_calls_run_by_turns_and_the_first_two_rounds_do_not_count() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = by_turns(calls, Effort.exactly(2), torch.device("cpu"))
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_what_is_made_once_does_not_cost_rounds() -> None:
    """As compiling does: the first call must not say how many rounds fit."""
    left = [0.6]
    seconds = by_turns({"a": lambda: time.sleep(left.pop() if left else 0.001)}, Effort(1.0, 2, 5), torch.device("cpu"))
    assert len(seconds["a"]) == 5


def test_long_rounds_are_repeated_less_often() -> None:
    effort = Effort(seconds=20, least=5, most=41)
    assert [effort.rounds(seconds) for seconds in (0.01, 1.0, 60.0)] == [41, 20, 5]


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def call() -> None:
        for _ in range(3):
            torch.empty(1000, dtype=torch.float64).fill_(1.0)

    assert peak(call, torch.device("cpu")) == 8000


def test_the_loss_of_a_step_has_a_gradient_in_every_channel_of_unit_normals() -> None:
    raw = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weighted_square({"normals": torch.nn.functional.normalize(raw, dim=1)}).backward()
    assert raw.grad is not None
    assert (raw.grad.abs().amax((0, 2, 3)) > 1e-3).all()


def test_operations_are_counted_forward_and_backward() -> None:
    weights, x = torch.ones(4, 5, requires_grad=True), torch.ones(3, 4)
    assert operations(lambda: x @ weights) == 2 * 3 * 4 * 5
    assert operations(lambda: (x @ weights).sum().backward()) == 2 * 2 * 3 * 4 * 5


def test_a_goal_of_speed_counts_the_operations_of_both_sides() -> None:
    bench, x = small(), torch.ones(8, 8)
    calls = {"four": lambda: [x @ x for _ in range(4)], "one": lambda: x @ x}
    bench.faster("four over one", 2.0, bench.compare("products", calls, base="one"), "four", "one")
    assert bench.goals[0].counted == 4.0
    assert Goal.from_json(bench.goals[0].to_json()) == bench.goals[0]


def test_shared_memory_is_resident_once() -> None:
    weights = torch.zeros(1000)
    assert resident([weights, weights[:10], weights.view(10, 100), torch.zeros(10)]) == 4040


def test_the_tree_of_a_shape_has_its_counts() -> None:
    assert [tree(shape).group_counts for shape in TREES.values()] == list(TREES.values())


def test_goals_know_on_which_side_they_pass_and_when_the_rounds_do_not_tell() -> None:
    assert Goal("", 1.0, 0.9).verdict == "pass"
    assert Goal("", 2.0, 1.9, at_least=True).verdict == "MISS"
    assert Goal("", 2.0, 1.9, at_least=True, low=1.8, high=2.1).verdict == "unclear"
    assert Goal("", 2.0, 1.9, at_least=True, low=1.8, high=1.95).verdict == "MISS"


def test_the_largest_of_some_differences_hides_no_nan() -> None:
    assert largest([0.1, 0.3]) == 0.3
    assert math.isnan(largest([0.1, math.nan, 0.3]))


def test_the_ways_of_per_sample_gradients_that_are_timed_give_the_same_numbers() -> None:
    assert difference(*both(small(), 2)) < 1e-4


def test_every_peft_adapter_moves_in_one_joint_step() -> None:
    from benchmarks.peers import PeftModels
    from benchmarks.training import jointly

    bench = small()
    backbone, _ = bench.training.traced("ViT-S")
    peft = PeftModels(backbone, bench.training.model("ViT-S", GROUPS)).train()
    before = {task: [p.detach().clone() for p in peft.trainable(task)] for task in peft.tasks}
    jointly(bench, peft, bench.training.images(2))()
    for task, old in before.items():
        # B starts at zero, so that A has no gradient yet.
        assert sum(not torch.equal(a, b) for a, b in zip(old, peft.trainable(task), strict=True)) >= len(old) // 2, task


def small() -> Bench:
    return Bench(torch.device("cpu"), 2, small=True, say=lambda line: None)
