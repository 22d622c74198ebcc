"""Every group of benchmarks runs, on shrunken backbones, and torch.compile cuts no graph."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as command
from benchmarks import startup
from benchmarks.bench import Bench
from benchmarks.compiled import examine, subject
from benchmarks.results import Results
from benchmarks.workloads import BACKBONES

#: with inductor's decompositions, whose rounding shows whether numbers are compared with anything
BACKEND = "aot_eager_decomp_partition"


def runs(group: str, out: Path) -> None:
    assert command.main([group, "--small", "--rounds", "2", "--device", "cpu", "--out", str(out)]) == 0
    entry = Results(out).groups()[group]
    assert entry["measured"]
    assert entry["goals"]


def test_the_cheapest_group_runs(tmp_path: Path) -> None:
    runs("affinity_cost", tmp_path / "cpu.json")


@pytest.mark.slow
@pytest.mark.parametrize("group", command.GROUPS)
@pytest.mark.filterwarnings("ignore")  # as when the benchmarks run
def test_every_group_runs(tmp_path: Path, group: str) -> None:
    runs(group, tmp_path / "cpu.json")


@pytest.mark.slow
def test_starting_takes_no_longer_than_wanted() -> None:
    """The goals of the group "startup"; a busy machine only adds to the times, so that the lower quartile counts."""
    bench = Bench(torch.device("cpu"), rounds=3, small=True)
    startup.measure(bench)
    assert [goal.wanted for goal in bench.goals] == [2.0, 1.0]
    for goal in bench.goals:
        assert goal.low is not None
        assert goal.low <= goal.wanted, f"{goal.name}: {goal.low:.2f}, wanted {goal.bound}"


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_compiling_cuts_no_graph_and_changes_no_number(name: str, training: bool) -> None:
    bench = Bench(torch.device("cpu"), 2, small=True)
    with torch.set_grad_enabled(training):
        found = examine(subject(bench, name, training), bench.training.images(2), BACKEND)
    assert not found.breaks
    assert found.again == 0
    assert 0 < max(found.differences.values()) < 1e-4
    assert found.rounding.keys() == found.differences.keys()
    assert 0 < max(found.rounding.values()) < 1e-4
