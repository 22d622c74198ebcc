"""`tree.task_streams`: a planned tree whose branches are combs, from the budget to the saved model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm

import branchtune as bt
from branchtune.affinity import Affinity
from branchtune.cli.main import main
from branchtune.cost import tree_cost
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings
from branchtune.run.finished import load_model
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from tiny_run import write_config

STREAMS = "--tree.task_streams=true"
TASKS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("method", ["branched", "random", "anti"])
def test_planned_trees_and_their_controls_have_streams_within_the_share(tmp_path: Path, method: str) -> None:
    settings = Settings.load(write_config(tmp_path), [STREAMS, "--adapter_share=0.2", f"--method={method}"])
    bench = Workbench(settings.config, Reporter.silent())
    names = bench.names
    model = bench.build(bt.TaskTree([[names], [names], [names[:2], names[2:]], [[name] for name in names]]))
    assert isinstance(model.adapter, bt.Comb)
    counts = model.count_parameters()
    assert 0.16 * counts["frozen"] < counts["adapters"] <= 0.2 * counts["frozen"]


@pytest.mark.parametrize("method", ["shared", "separate"])
def test_methods_without_a_planned_tree_have_none(tmp_path: Path, method: str) -> None:
    settings = Settings.load(write_config(tmp_path), [STREAMS, f"--method={method}"])
    model = Workbench(settings.config, Reporter.silent()).build(None)
    assert type(model.adapter) is bt.LoRA


def test_a_plan_counts_them_in_its_budgets() -> None:
    spec = bt.trace_backbone(timm.create_model("test_vit", pretrained=False, img_size=32).eval(), image_size=32)
    affinity = Affinity.from_matrix(TASKS, np.eye(4), spec)
    adapter = bt.Comb(r=4, r_task=4)
    least = tree_cost(spec, bt.TaskTree.shared(TASKS, len(spec.levels)), adapter)
    found = set()
    for factor in (1.0, 1.3, 1.7, 2.2, 4.0):
        macs = tree_cost(spec, bt.plan(affinity, adapter=adapter, budget=factor * least.ratio), adapter)
        assert macs.ratio <= factor * least.ratio
        size = tree_cost(
            spec, bt.plan(affinity, adapter=adapter, budget_params=int(factor * least.parameters)), adapter
        )
        assert size.parameters <= factor * least.parameters
        found.add((macs.parameters, size.parameters))
    assert len(found) > 2
    with pytest.raises(UserError, match=rf"budget_params=.* \(at least {least.parameters}\)"):
        bt.plan(affinity, adapter=adapter, budget_params=least.parameters - 1)


def test_a_run_trains_saves_and_evaluates_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert main(["fit", str(config), STREAMS, "--trainer.max_epochs=1", "--quiet"]) == 0
    run = tmp_path / "runs" / "tiny"
    results = json.loads((run / "results.json").read_text())
    model = load_model(run, Workbench(load_settings(run).config, Reporter.silent()))
    assert isinstance(model.adapter, bt.Comb)
    assert model.tree.group_counts == (1, 1, 2, 4)
    assert model.count_parameters()["adapters"] == results["parameters"]["adapters"]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--quiet", "--format=json"]) == 0
    assert f"{results['metrics']['depth']['rmse']:.6g}"[:6] in capsys.readouterr().out


def test_streams_of_another_family_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="streams of the tasks are made of LoRA, the adapter is Bottleneck"):
        _ = Settings.load(write_config(tmp_path), [STREAMS, "--adapter=branchtune.Bottleneck"]).config
