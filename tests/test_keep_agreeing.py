"""`keep_agreeing`: only tasks whose affinity is below zero on average are parted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import branchtune as bt
from affinity_cases import made_up_spec
from branchtune.affinity import Affinity
from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.planning.dendrogram import dendrogram_cuts, opposed_groups
from branchtune.progress import Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from finished_run import run_of
from test_planning_dendrogram import random_matrix
from tiny_run import write_config

# a and b agree, c and d agree, and the two pairs oppose each other.
PAIRS = np.array([[1, 0.5, -0.2, 0.1], [0.5, 1, -0.3, -0.1], [-0.2, -0.3, 1, 0.4], [0.1, -0.1, 0.4, 1]])
SPEC = made_up_spec([(100, 4), (80, 8), (60, 16)], stem=20)


def affinity(matrix: np.ndarray = PAIRS) -> Affinity:
    return Affinity.from_matrix(["a", "b", "c", "d"], matrix, SPEC)


@pytest.mark.parametrize(
    ("matrix", "groups"), [(PAIRS, 2), (np.abs(PAIRS), 1), (np.eye(4), 1), (2 * np.eye(4) - 1, 4), (np.eye(1), 1)]
)
def test_known_answers(matrix: np.ndarray, groups: int) -> None:
    assert opposed_groups(matrix) == groups


@given(tasks=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_all_groups_that_are_left_oppose_each_other_on_average(tasks: int, seed: int) -> None:
    matrix = random_matrix(tasks, seed)
    cuts = dendrogram_cuts(matrix)
    count = opposed_groups(matrix)
    for first, second in itertools.combinations(cuts[count - 1], 2):
        assert matrix[np.ix_(first, second)].mean() < 0
    if count < tasks:  # one group more parts two that agree
        (parted,) = set(cuts[count - 1]) - set(cuts[count])
        first, second = (group for group in cuts[count] if set(group) < set(parted))
        assert matrix[np.ix_(first, second)].mean() >= -1e-9


def test_counts_and_budgets_stop_where_tasks_agree() -> None:
    assert bt.plan(affinity(), groups=(1, 2, 4)).group_counts == (1, 2, 4)
    tree = bt.plan(affinity(), groups=(1, 2, 4), keep_agreeing=True)
    assert tree.levels[1:] == ((("a", "b"), ("c", "d")),) * 2
    for budget in ({"budget": 100.0}, {"budget_params": 10**9}):
        assert bt.plan(affinity(), **budget).group_counts == (4, 4, 4)  # type: ignore[arg-type]
        assert bt.plan(affinity(), **budget, keep_agreeing=True).group_counts == (2, 2, 2)  # type: ignore[arg-type]
    assert bt.plan(affinity(np.abs(PAIRS)), groups=(1, 2, 4), keep_agreeing=True).group_counts == (1, 1, 1)


DISAGREEING = {"none": (1, 1, 1, 1), "pairs": (1, 1, 2, 2), "all": (1, 1, 2, 4)}


@pytest.mark.parametrize("method", ["branched", "random", "anti"])
@pytest.mark.parametrize("disagree", DISAGREEING)
def test_controls_have_the_groups_of_the_plan_or_without_a_fork_those_asked_for(
    tmp_path: Path, method: str, disagree: str
) -> None:
    bench = control(tmp_path, method)
    counts = (1, 1, 2, 4) if disagree == "none" and method != "branched" else DISAGREEING[disagree]
    assert bench.plan(matrix(bench, disagree)).group_counts == counts


@pytest.mark.parametrize("groups", [(1, 1, 2, 2), (1, 1, 2, 4)])
def test_a_random_tree_is_neither_the_plan_nor_the_cut_that_it_left_out(
    tmp_path: Path, groups: tuple[int, ...]
) -> None:
    bench = control(tmp_path, "random", f"--tree.groups={list(groups)}")
    for disagree in ("none", "pairs"):
        affinity = matrix(bench, disagree)
        planned = [bt.plan(affinity, groups=groups, keep_agreeing=agreeing) for agreeing in (False, True)]
        for seed in range(7):  # as many as there are ways to part four tasks in two
            bench.config.seed = seed
            assert bench.plan(affinity) not in planned


def control(tmp_path: Path, method: str, *arguments: str) -> Workbench:
    settings = Settings.load(write_config(tmp_path), ["--tree.keep_agreeing=true", f"--method={method}", *arguments])
    return Workbench(settings.config, Reporter.silent())


def matrix(bench: Workbench, disagree: str) -> Affinity:
    """Nobody, two pairs, or everybody disagrees; where nobody does, one task agrees less."""
    sign = {"none": np.ones((4, 4)), "pairs": np.kron([[1, -1], [-1, 1]], np.ones((2, 2))), "all": 2 * np.eye(4) - 1}
    values = sign[disagree] * 0.5
    if disagree == "none":
        values[0, :] = values[:, 0] = 0.2
    np.fill_diagonal(values, 1.0)
    return Affinity.from_matrix(bench.names, values, bench.spec)


def test_it_is_a_key_of_the_planned_tree_and_its_controls(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for method in ("branched", "random", "shared"):
        settings = Settings.load(config, [f"--method={method}", f"--name={method}"]).but(output=str(tmp_path / "runs"))
        run = RunDirectory(settings)
        run.path.mkdir(parents=True)
        run.create()
        run.write("tree.json", {})
        changed = settings.but(**{"tree.keep_agreeing": True})
        if method == "shared":
            RunDirectory(changed)
        else:
            with pytest.raises(UserError, match=r"tree.keep_agreeing=False, this one has tree.keep_agreeing=True"):
                RunDirectory(changed)


def test_it_excludes_a_tree_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["semseg", "depth", "normals", "edge"]
    levels = json.dumps([[names]] * 4)
    arguments = ["--tree.groups=null", f"--tree.levels={levels}", "--tree.keep_agreeing=true"]
    assert main(["fit", str(write_config(tmp_path)), *arguments]) == 2
    assert "tree.keep_agreeing has no effect beside it" in capsys.readouterr().err


def test_a_share_that_forks_would_exceed_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    settings = Settings.load(write_config(tmp_path), ["--tree.keep_agreeing=true", "--adapter_share=0.02"])
    with pytest.raises(UserError, match=r"too few for groups \(1, 1, 2, 4\)"):
        Workbench(settings.config, Reporter.silent()).check(plans=True)


def test_plan_on_the_command_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, found = str(run_of(finished)), []
    for option in ([], ["--keep_agreeing"]):
        assert main(["plan", run, "--groups=[2,2,3,4]", "--format=json", *option]) == 0
        found.append(len(json.loads(capsys.readouterr().out)["tree"]["levels"][-1]))
    measured = Affinity.load(run_of(finished) / "affinity.json")
    assert found == [4, min(4, opposed_groups(measured.corrected()))]
