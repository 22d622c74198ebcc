"""`adapter_share`: ranks by a number of parameters, for trees of any shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import branchtune as bt
from affinity_cases import made_up_spec
from branchtune.adapters.comb import Comb
from branchtune.affinity import Affinity
from branchtune.cli.main import main
from branchtune.cost import tree_cost
from branchtune.errors import UserError
from branchtune.planning.ranks import with_ranks_within
from branchtune.progress import Reporter
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from test_planning_dendrogram import TOY
from tiny_run import write_config

SPEC = made_up_spec([(1000, 4), (800, 8), (600, 16), (400, 32)], stem=200)
TASKS = ["a", "b", "c", "d"]
SHARED = bt.TaskTree.shared(TASKS, 4)
SEPARATE = bt.TaskTree.separate(TASKS, 4)
TREE = bt.TaskTree([[TASKS], [TASKS], [TASKS[:2], TASKS[2:]], [[task] for task in TASKS]])


def ranks(adapter: bt.LoRA) -> list[int]:
    return [adapter.rank_pattern[level] for level in range(4)]


def even(tree: bt.TaskTree, rank: int) -> int:
    """Parameters when every level has what one set of this rank has there."""
    pattern = {level: max(1, rank // count) for level, count in enumerate(tree.group_counts)}
    return parameters(tree, bt.LoRA(rank_pattern=pattern))


def parameters(tree: bt.TaskTree, adapter: bt.LoRA) -> int:
    return tree_cost(SPEC, tree, adapter).parameters


@given(st.integers(min_value=1, max_value=8), st.sampled_from([SHARED, SEPARATE, TREE]))
def test_the_ranks_are_the_largest_that_fit(multiple: int, tree: bt.TaskTree) -> None:
    limit = multiple * parameters(tree, bt.LoRA(r=1))
    adapter = with_ranks_within(bt.LoRA(r=8), SPEC, tree, limit)
    assert parameters(tree, adapter) <= limit
    assert min(ranks(adapter)) >= 1
    shared = max(rank for rank in range(200) if even(tree, rank) <= limit)
    found, least = ranks(adapter), [max(1, shared // count) for count in tree.group_counts]
    assert all(rank - base in (0, 1) for rank, base in zip(found, least, strict=True))
    for level in (i for i in range(4) if found[i] == least[i]):
        more = [rank + (i == level) for i, rank in enumerate(found)]
        assert parameters(tree, bt.LoRA(rank_pattern=dict(enumerate(more)))) > limit


def test_every_level_has_what_a_shared_set_would_have_there() -> None:
    limit = parameters(SHARED, bt.LoRA(r=16))
    assert ranks(with_ranks_within(bt.LoRA(), SPEC, SHARED, limit)) == [16, 16, 16, 16]
    assert ranks(with_ranks_within(bt.LoRA(), SPEC, SEPARATE, limit)) == [4, 4, 4, 4]
    assert ranks(with_ranks_within(bt.LoRA(), SPEC, TREE, limit)) == [16, 16, 8, 4]


def test_lora_alpha_stays_as_papers_and_peft_have_it() -> None:
    adapter = with_ranks_within(bt.LoRA(r=4, lora_alpha=12, alpha_pattern={1: 6}), SPEC, TREE, 4000)
    assert (adapter.lora_alpha, adapter.alpha_pattern) == (12, {1: 6})
    assert adapter.rank_pattern.keys() == set(range(4))


def test_too_few_parameters_are_refused_with_the_least() -> None:
    least = parameters(SEPARATE, bt.LoRA(r=1))
    with pytest.raises(UserError, match=f"too few for groups .*rank 1 has {least:,} parameters"):
        with_ranks_within(bt.LoRA(), SPEC, SEPARATE, least - 1)


@given(st.floats(min_value=1.3, max_value=4.5), st.integers(min_value=1, max_value=24))
def test_a_budget_holds_for_the_ranks_that_the_tree_gets(budget: float, rank: int) -> None:
    limit = parameters(SHARED, bt.LoRA(r=rank))
    affinity = Affinity.from_matrix(TASKS, TOY, SPEC)
    try:
        tree = bt.plan(affinity, adapter=bt.LoRA(), budget=budget, adapter_params=limit)
    except UserError as error:
        assert "infeasible budget" in str(error)  # noqa: PT017
        return
    cost = tree_cost(SPEC, tree, with_ranks_within(bt.LoRA(), SPEC, tree, limit, budget))
    assert cost.ratio <= budget
    assert cost.parameters <= limit


def test_adapters_of_a_fixed_size_leave_no_parameter_budget() -> None:
    affinity = Affinity.from_matrix(TASKS, TOY, SPEC)
    with pytest.raises(UserError, match="fixes the parameters of every tree: leave budget_params out"):
        bt.plan(affinity, budget_params=10_000, adapter_params=10_000)


def test_no_rank_passes_what_the_layers_can_use() -> None:
    most = max(min(site.in_channels, site.out_channels) for site in SPEC.sites)
    assert max(ranks(with_ranks_within(bt.LoRA(), SPEC, SHARED, 10**9))) == most


def test_an_adapter_without_ranks_is_refused() -> None:
    with pytest.raises(UserError, match="Bottleneck has no ranks"):
        with_ranks_within(bt.Bottleneck(), SPEC, SHARED, 10_000)


@pytest.mark.parametrize("method", ["shared", "separate", "comb", "branched"])
def test_every_method_trains_at_most_the_share_of_the_backbone(tmp_path: Path, method: str) -> None:
    settings = Settings.load(write_config(tmp_path), ["--adapter_share=0.2", "--extras=[norms]"]).but(method=method)
    bench = Workbench(settings.config, Reporter(quiet=True))
    names = bench.names
    model = bench.build(bt.TaskTree([[names], [names], [names[:2], names[2:]], [[name] for name in names]]))
    counts = model.count_parameters()
    backbone = counts["frozen"] + counts["extras"]
    assert 0.16 * backbone < counts["adapters"] + counts["extras"] <= 0.2 * backbone
    if method == "comb":
        assert isinstance(model.adapter, Comb)
        assert model.adapter.r_task == 4


def test_a_share_that_extras_use_up_is_refused(tmp_path: Path) -> None:
    settings = Settings.load(write_config(tmp_path), ["--adapter_share=0.001", "--extras=[norms]"]).but(method="shared")
    with pytest.raises(UserError, match=r"leaves nothing for adapters beside .* parameters of extras"):
        Workbench(settings.config, Reporter(quiet=True)).build(None)


def test_a_share_leaves_no_budget_of_parameters(tmp_path: Path) -> None:
    arguments = ["--adapter_share=0.2", "--tree.groups=null", "--tree.budget_params=1000"]
    with pytest.raises(UserError, match=r"set tree\.budget_params to null"):
        _ = Settings.load(write_config(tmp_path), arguments).config


def test_plan_prints_the_ranks_that_fit_would_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_config(tmp_path))
    arguments = ["--adapter_share=0.2", "--trainer.max_epochs=1", "--quiet"]
    assert main(["fit", config, *arguments]) == 0
    built = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())["parameters"]["adapters"]
    assert f" {built:,} " in capsys.readouterr().out
    assert main(["plan", str(tmp_path / "runs" / "tiny"), "--groups=[1,1,2,4]"]) == 0
    assert f" {built:,} " in capsys.readouterr().out
    (tmp_path / "runs" / "tiny" / "manifest.json").unlink()
    assert main(["plan", str(tmp_path / "runs" / "tiny"), "--groups=[1,1,2,4]"]) == 2
    assert "does not say how many parameters adapter_share=0.2 gives" in capsys.readouterr().err


def test_a_share_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_share=0.0: must be above 0"):
        _ = Settings.load(write_config(tmp_path), ["--adapter_share=0"]).config


def test_the_stored_configuration_repeats_the_share(tmp_path: Path) -> None:
    settings = Settings.load(write_config(tmp_path), ["--adapter_share=0.2"])
    assert yaml.safe_load(settings.text())["adapter_share"] == 0.2
