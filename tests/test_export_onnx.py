"""`export_onnx`: one graph whose outputs, cost and metadata are the model's, run by onnxruntime."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import branchtune as bt
from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.shipping import export_onnx as module
from contract_backbones import CONTRACTS, TREES, grow, randomise
from exported_models import RoughTask, names, odd_model, random_images, tokens_model
from finished_run import run_of
from shipping_models import model_on, swin
from small_backbones import Tokens
from test_predict import TASKS
from tiny_run import write_config


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[bt.MultiTaskModel, Path, Any]:
    """A model of two tasks that part before the second level, its file, and the report."""
    torch.manual_seed(0)
    model, path = tokens_model(), tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, bt.export_onnx(model, path)


def outputs(path: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": images.numpy()})
    return {out.name: torch.from_numpy(np.asarray(x)) for out, x in zip(session.get_outputs(), found, strict=True)}


def check_equal(path: Path, model: bt.MultiTaskModel, size: tuple[int, int], tolerance: float = 1e-4) -> None:
    for batch in (1, 2, 5):
        images = random_images(batch, size)
        with torch.no_grad():
            expected = model(images)
        found = outputs(path, images)
        assert list(found) == list(expected)
        for task, value in expected.items():
            assert (found[task] - value).abs().max() <= tolerance * value.abs().max(), (task, batch)


def graph_macs(path: Path) -> tuple[int, Counter[str]]:
    """Multiply-accumulates for one image, and how many products, of the graph's part that comes from the backbone."""
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.value_info}
    shapes |= {weight.name: list(weight.dims) for weight in graph.graph.initializer}
    macs, products = 0, Counter[str]()
    for node in graph.graph.node:
        scope = {entry.key: entry.value for entry in node.metadata_props}["namespace"]
        if node.op_type in ("MatMul", "Gemm", "Conv") and "model.backbone" in scope:
            products[node.op_type] += 1
            weight = shapes[node.input[1]]
            macs += prod(shapes[node.output[0]]) * (prod(weight[1:]) if node.op_type == "Conv" else weight[-2])
    return macs, products


def test_outputs_are_the_models_for_any_batch(exported: tuple[bt.MultiTaskModel, Path, Any]) -> None:
    model, path, report = exported
    check_equal(path, model, (32, 32))
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    text = str(report)
    assert "ONNX opset 20" in text
    assert "images [batch, 3, 32, 32] -> b, c" in text
    assert "one image: onnxruntime " in text
    assert max(report.differences.values()) < 1e-5


def test_the_graph_costs_what_the_tree_costs(exported: tuple[bt.MultiTaskModel, Path, Any]) -> None:
    model, path, _ = exported
    macs, products = graph_macs(path)
    assert macs == model.cost().macs
    assert products == {"Conv": 1, "MatMul": 2 * 3}  # two layers, each with the two products of its adapters


def test_the_file_says_how_to_use_it_and_nothing_of_this_machine(
    exported: tuple[bt.MultiTaskModel, Path, Any],
) -> None:
    _, path, _ = exported
    meta = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta()
    assert {key: json.loads(value) for key, value in meta.custom_metadata_map.items()} == {
        "branchtune_version": bt.__version__,
        "tasks": ["b", "c"],
        "kinds": {"b": "Depth", "c": "Depth"},
        "image_size": [32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert b"small_backbones.py" not in path.read_bytes()


def test_missing_packages_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name.startswith("onnx") else find(name, *more)
    )
    with pytest.raises(UserError, match=r"needs onnx and onnxruntime and onnxscript: pip install 'branchtune\[onnx\]'"):
        bt.export_onnx(tokens_model(), tmp_path / "model.onnx")
    assert names(tmp_path) == []


def test_weights_that_a_file_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tokens_model()
    needed = sum(p.nbytes for name, p in model.named_parameters() if "1/c" not in name and "decoders.c" not in name)
    monkeypatch.setattr(module, "LARGEST", needed + 1)
    with pytest.raises(UserError, match=r"do not fit into an ONNX file \(2 GB\): use --format torch, or fewer tasks"):
        bt.export_onnx(model, tmp_path / "model.onnx")
    assert names(tmp_path) == []
    bt.export_onnx(model, tmp_path / "model.onnx", tasks=["b"])


@pytest.mark.slow
def test_an_output_that_float32_cannot_tell_is_compared_with_float64(tmp_path: Path) -> None:
    model = tokens_model()
    model.tasks["b"] = RoughTask("b")
    report = bt.export_onnx(model, tmp_path / "model.onnx")
    assert report.differences["c"] < 1e-4 < report.differences["b"]
    check_equal(tmp_path / "model.onnx", model, (32, 32), 1e-2)


@pytest.mark.slow
def test_a_merged_model(tmp_path: Path) -> None:
    model = tokens_model().float()
    merged = model.merge("all")
    bt.export_onnx(merged, tmp_path / "model.onnx")
    check_equal(tmp_path / "model.onnx", model, (32, 32))
    assert graph_macs(tmp_path / "model.onnx")[0] == merged.cost().macs < model.cost().macs


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    expected = r"the decoder of task 'b' \(exported_models.py, line \d+\) uses aten._linalg_eigh.default, which cannot"
    with pytest.raises(UserError, match=expected) as caught:
        bt.export_onnx(odd_model("eigh"), tmp_path / "model.onnx")
    assert "No ONNX function found" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
    bt.export_torch(odd_model("eigh"), tmp_path / "model.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["values", "NaN", "a batch"])
def test_a_graph_that_differs_is_not_left_behind(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = module._session

    def faulty(path: Path, tasks: list[str]) -> Any:
        run = session(path, tasks)

        def changed(images: torch.Tensor) -> dict[str, torch.Tensor]:
            if fault == "a batch" and len(images) == 3:
                raise RuntimeError("Got invalid dimensions")
            found = run(images)
            return {**found, "c": found["c"] * {"values": 1.001, "NaN": float("nan"), "a batch": 1}[fault]}

        return changed

    monkeypatch.setattr(module, "_session", faulty)
    expected = "does not run with 3 images: Got invalid" if fault == "a batch" else "gives other values for task 'c'"
    with pytest.raises(UserError, match=expected):
        bt.export_onnx(tokens_model(), tmp_path / "model.onnx")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_shared_levels_do_not_grow_with_the_tasks(tmp_path: Path) -> None:
    """One graph of one task, one of four that share everything but the last level."""
    model = randomise(
        grow("swin_tiny", bt.TaskTree([[list("abcd")]] * 3 + [[[t] for t in "abcd"]]), bt.LoRA(r=2)), 0.05
    )
    found = {}
    for tasks in (["b"], ["a", "b", "c", "d"]):
        path = tmp_path / f"{len(tasks)}.onnx"
        bt.export_onnx(model, path, tasks=tasks)
        found[len(tasks)] = graph_macs(path)
    assert found[1][1] == found[4][1]
    last = [cost.macs for node, cost in model.cost().nodes if node.level == 3]
    assert found[4][0] - found[1][0] == sum(last[1:])
    assert found[4][0] == model.cost().macs


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_backbone(name: str, tmp_path: Path) -> None:
    model = randomise(grow(name, TREES["interleaved"], bt.LoRA(r=2)), 0.05)
    bt.export_onnx(model, tmp_path / "model.onnx")
    check_equal(tmp_path / "model.onnx", model, CONTRACTS[name].size(), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"adapter": bt.Bottleneck(reduction=2)},
        {"adapter": bt.Comb(r=2), "tree": None},
        {"adapter": None, "tree": None, "train_backbone": True},
        {"decoder": bt.HRNetDecoder(widths=(4, 4, 4, 4)), "extras": ("norms",)},
    ],
    ids=["bottleneck", "comb", "full", "hrnet"],
)
def test_every_method(arguments: dict[str, Any], tmp_path: Path) -> None:
    model = model_on(swin(tmp_path), **arguments)
    for export, file in ((bt.export_onnx, "model.onnx"), (bt.export_torch, "model.pt2")):
        export(model, tmp_path / file)
    check_equal(tmp_path / "model.onnx", model, (32, 32))


@pytest.mark.slow
def test_a_model_in_half_precision_is_written_in_float32(tmp_path: Path) -> None:
    model = tokens_model().bfloat16()
    bt.export_onnx(model, tmp_path / "model.onnx")
    assert next(model.parameters()).dtype == torch.bfloat16
    check_equal(tmp_path / "model.onnx", model.float(), (32, 32))


@pytest.mark.slow
def test_the_command_on_a_run_and_on_its_model(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_of(finished)
    assert main(["export", str(run), "--format=onnx", "--image_size=48", "--tasks=[depth,normals]"]) == 0
    assert "images [batch, 3, 48, 48] -> depth, normals" in capsys.readouterr().out
    assert main(["export", str(run), "--format=torch", "-o", "all.pt2"]) == 0
    assert names(tmp_path) == ["all.pt2", "tiny.onnx"]
    expected = torch.export.load(tmp_path / "all.pt2").module()(random_images(3))
    assert list(expected) == ["semseg", "depth", "normals", "edge"]
    assert set(outputs(tmp_path / "tiny.onnx", random_images(2, (48, 48)))) == {"depth", "normals"}
    # without the run's configuration, its random backbone cannot be made again
    assert main(["export", str(run / "model"), "--format=onnx"]) == 2
    assert "created with pretrained=False" in capsys.readouterr().err


@pytest.mark.slow
def test_a_saved_model_of_a_users_own_task(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert main(["fit", str(config), TASKS, "--method=full", "--trainer.max_epochs=1", "--name=own", "--quiet"]) == 0
    saved, path = config.parent / "runs" / "own" / "model", tmp_path / "own.onnx"
    assert main(["export", str(saved), "--format=onnx", f"--out={path}"]) == 0
    check_equal(path, bt.MultiTaskModel.from_pretrained(saved), (32, 32), 1e-3)


def test_tasks_named_as_the_exporter_names_values_inside(tmp_path: Path) -> None:
    tasks, tree = [bt.Depth("linear"), bt.Depth("add")], [[["linear", "add"]], [["linear"], ["add"]]]
    adapter = bt.LoRA(r=2, target_modules=["one", "two"])
    model = bt.MultiTaskModel(Tokens(), tasks, tree, adapter, bt.LightDecoder(8), levels=["one", "two"], image_size=32)
    assert set(bt.export_onnx(model.eval(), tmp_path / "model.onnx").differences) == {"linear", "add"}
