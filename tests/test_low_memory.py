"""Low-memory inference: the stored weights are the rounded ones, everything else is as it was, and what is refused."""

from __future__ import annotations

import copy
import gc
import importlib.util
import io
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.cli.main import main
from branchtune.low_memory.weights import stored_bytes
from branchtune.progress import Reporter
from branchtune.run.finished import load_model
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from contract_backbones import CONTRACTS, TREES, grow, randomise, relative_error
from exported_models import NeedsMask
from finished_run import run_of
from small_backbones import Tokens
from small_backbones import grow as grow_small
from small_model import small_model

LINEAR = ("vit_tiny", "swin_tiny", "masked_net")


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=dtype)


def twin_of(model: bt.MultiTaskModel, stored: bt.LowMemoryModel) -> bt.MultiTaskModel:
    """The model in full precision with the rounded weights, after a look at the rounding."""
    twin = copy.deepcopy(model)
    for name, module in twin.backbone.frozen.named_modules():
        found = stored.backbone.frozen.get_submodule(name)
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight, low = module.weight.detach(), found.weight.detach()
        if f"{name}.weight" in model.backbone.extra_names:
            assert torch.equal(weight, low)
        elif stored.precision == "bfloat16":
            module.weight.data = weight.to(torch.bfloat16).to(weight.dtype)
        elif isinstance(module, nn.Linear):
            module.weight.data = low.dequantize()
            step = weight.abs().amax(1, keepdim=True) / 127.5
            assert torch.all((module.weight - weight).abs() <= 0.5001 * step)
    return twin


@pytest.mark.parametrize("options", [{}, {"extras": ("patch_embed", "patch_merging")}], ids=["frozen", "extras"])
def test_bfloat16_computes_in_full_precision_with_rounded_frozen_weights(options: dict[str, Any]) -> None:
    model = small_model(**options).eval()
    stored = model.low_memory("bfloat16")
    twin = twin_of(model, stored)
    with torch.no_grad():
        expected, found = twin(images()), stored(images())
    for task in expected:
        assert found[task].dtype == torch.float64
        assert relative_error(found[task], expected[task]) < 1e-12


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", LINEAR)
def test_both_do_on_a_subset_of_tasks_too(name: str, precision: Any) -> None:
    contract, model = CONTRACTS[name], randomise(grow(name, TREES["interleaved"], bt.LoRA(r=2))).float().eval()
    stored = model.low_memory(precision, example_inputs=contract.inputs(1) or None)
    twin = twin_of(model, stored)
    x, inputs = contract.images(2, torch.float32), contract.inputs(2)
    with torch.no_grad():
        for tasks in (list(model.tasks), ["d", "c"]):
            expected, found, full = (m(x, tasks, **inputs) for m in (twin, stored, model))
            for task in tasks:
                assert relative_error(found[task], expected[task]) < 0.01 * relative_error(found[task], full[task])


def test_memory_is_that_of_the_stored_weights() -> None:
    model = grow("vit_tiny", TREES["interleaved"], bt.LoRA(r=2)).float()
    layers = [m for m in model.backbone.frozen.modules() if isinstance(m, nn.Linear)]
    convolution = model.backbone.frozen.get_submodule("patch_embed.proj").weight
    numbers, channels = sum(m.weight.numel() for m in layers), sum(m.out_features for m in layers)
    saved = {
        "bfloat16": 2 * (numbers + convolution.numel()),
        "int8": 3 * numbers - 5 * channels,  # a scale and a zero point per output channel
    }
    for precision, expected in saved.items():
        stored = model.low_memory(precision)  # type: ignore[arg-type]
        assert stored.bytes_before == sum(p.nbytes for p in model.backbone.frozen.parameters())
        assert stored.num_stored == len(layers) + (precision == "bfloat16")
        assert stored.bytes_before - stored.bytes_after == expected
        assert f"{stored.num_stored} weights in {precision}" in stored.describe()
        assert stored.count_parameters() == model.count_parameters()
        assert stored.cost() == model.cost()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_snapshot_that_leaves_the_model_as_it_was(precision: Any) -> None:
    model = small_model(extras=("norms",)).float().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    stored = model.low_memory(precision)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert kinds == {name: type(module) for name, module in model.named_modules()}
    with torch.no_grad():
        before = stored(images(torch.float32))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        for name, output in stored(images(torch.float32)).items():
            assert torch.equal(output, before[name])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("how", ["copy", "pickle", "torch.save"])
def test_it_can_be_copied_and_pickled(precision: Any, how: str) -> None:
    stored = grow_small(Unusual(), target_modules=["one", "two"]).low_memory(precision)
    again = copy_of(stored, how)
    x = images(torch.float32)
    with torch.no_grad():
        expected, found = stored(x), again(x)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        for tensor in (*again.backbone.adapters.parameters(), *again.decoders.parameters()):
            tensor.add_(1.0)
        assert all(not torch.equal(output, expected[name]) for name, output in again(x).items())
        assert all(torch.equal(output, expected[name]) for name, output in stored(x).items())
    assert again.describe() == stored.describe()
    assert stored_bytes(again) == stored_bytes(stored)  # the two layers with one weight still share it
    assert [type(module) for module in again.modules()] == [type(module) for module in stored.modules()]
    if precision == "bfloat16":
        assert again.double()(images())["b"].dtype == torch.float64


def copy_of(model: bt.LowMemoryModel, how: str) -> bt.LowMemoryModel:
    if how == "copy":
        return copy.deepcopy(copy.deepcopy(model))
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_another_precision_of_the_model_leaves_the_stored_weights(dtype: torch.dtype) -> None:
    model = small_model().float().eval()
    stored = model.low_memory("bfloat16")
    with torch.no_grad():
        expected = twin_of(model, stored).to(dtype)(images(dtype))
        found = stored.to(dtype)(images(dtype))
        widened = stored.float()(images(torch.float32))
    for task in expected:
        assert relative_error(found[task].float(), expected[task].float()) < 1e-6
        assert widened[task].dtype == torch.float32
    weight = stored.backbone.frozen.get_parameter("layers.1.blocks.0.norm1.weight")
    assert weight.dtype == torch.float32
    linear = stored.backbone.frozen.get_submodule("layers.1.blocks.0.mlp.fc1")
    assert linear.weight_bits.nbytes == 2 * linear.weight.numel()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    "options",
    [{"adapter": bt.Comb(r=2), "tree": None}, {"adapter": None, "tree": None, "train_backbone": True}],
    ids=["comb", "full"],
)
def test_other_methods(options: dict[str, Any], precision: Any) -> None:
    model = small_model(**options).float().eval()
    stored = model.low_memory(precision)
    twin = twin_of(model, stored)
    with torch.no_grad():
        expected, found, full = (m(images(torch.float32)) for m in (twin, stored, model))
    for task in expected:
        assert relative_error(found[task], expected[task]) < 0.01 * relative_error(found[task], full[task])


class Unusual(Tokens):
    """A first layer without a bias, two layers with one weight, and attention of torch's own."""

    def __init__(self) -> None:
        super().__init__(16)
        self.patches = nn.Conv2d(3, 16, 8, 8, bias=False)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.one.weight
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.again(torch.tanh(self.one(self.tokens(images))))
        return self.two(self.attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_unusual_layers(precision: Any) -> None:
    model = grow_small(Unusual(), target_modules=["one", "two"])
    stored = model.low_memory(precision)
    frozen, twin = stored.backbone.frozen, twin_of(model, stored)
    with torch.no_grad():
        expected, found = twin(images(torch.float32)), stored(images(torch.float32))
    for task in expected:
        assert relative_error(found[task], expected[task]) < 1e-4
    with pytest.raises(bt.UserError, match="images are float64, the model is float32"):
        stored(images())
    one, again, projection = (frozen.get_submodule(n) for n in ("one", "again", "attention.out_proj"))
    if precision == "bfloat16":
        assert one.weight_bits is again.weight_bits
        assert stored.num_stored == 5
    else:
        assert one.weight is again.weight
        assert type(projection.weight) is nn.Parameter
        assert stored.num_stored == 3


def test_a_model_in_half_precision_has_nothing_to_gain_from_bfloat16() -> None:
    with pytest.raises(bt.UserError, match="has no layer whose weight is smaller in bfloat16"):
        small_model().bfloat16().low_memory("bfloat16")


def test_a_backbone_with_further_inputs() -> None:
    example = {"mask": torch.ones(1, 16)}
    model = grow_small(NeedsMask(), target_modules=["one", "two"], example_inputs=example)
    with pytest.raises(bt.UserError, match=r"not run on images alone: .*mask.*pass what it needs as example_inputs="):
        model.low_memory()
    assert model.low_memory(example_inputs=example).num_stored == 3
    for wrong, message in ((3, "example_inputs=3: pass a dict"), ({"mask": 1.0}, "'mask' is of type float: pass a")):
        with pytest.raises(bt.UserError, match=message):
            model.low_memory(example_inputs=wrong)  # type: ignore[arg-type]


def test_int8_under_autocast() -> None:
    model = small_model().float().eval()
    stored = model.low_memory("int8")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for task, output in stored(images(torch.float32)).items():
            assert torch.isfinite(output).all(), task


def test_autocast_does_not_widen_the_weights() -> None:
    model = small_model().float().eval()
    stored = model.low_memory("bfloat16")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, found = model(images(torch.float32)), stored(images(torch.float32))
        assert stored.backbone.frozen.get_submodule("layers.1.blocks.0.mlp.fc1").weight.dtype == torch.bfloat16
    for task in expected:
        assert torch.equal(expected[task], found[task])


def test_it_is_for_inference_alone(tmp_path: Path) -> None:
    stored = small_model().low_memory()
    assert isinstance(stored, bt.MultiTaskModel)
    assert not any(parameter.requires_grad for parameter in stored.parameters())
    assert not any(stored.trains(name) for name, _ in stored.named_parameters())
    assert not any(module.training for module in stored.train().modules())
    with pytest.raises(bt.UserError, match="a low-memory model does not train: train the model that it was made from"):
        stored.requires_grad_()
    with pytest.raises(bt.UserError, match=r"this model is low-memory already: use low_memory\(\) of the one that"):
        stored.low_memory()
    with pytest.raises(bt.UserError, match=r"low-memory: adapters merged into its weights would be rounded.*use m"):
        stored.merge()
    with pytest.raises(bt.UserError, match=r"merged: low precision would round its adapters .* use low_memory\(\) of"):
        small_model().merge().low_memory()
    with pytest.raises(bt.UserError, match="this model is low-memory: change the tasks of the one"):
        stored.remove_task("a")
    with pytest.raises(bt.UserError, match=r"not saved.*from_pretrained\(path\).low_memory\('bfloat16'\)"):
        stored.save_pretrained(tmp_path / "model")
    for name, export in (("model.onnx", bt.export_onnx), ("model.pt2", bt.export_torch)):
        with pytest.raises(bt.UserError, match="graphs are exported in float32"):
            export(stored, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


class Spectral(Tokens):
    """Reads a weight beside calling its layer."""

    def forward(self, images: Tensor) -> Tensor:
        return self.two(self.one(self.tokens(images)) / torch.linalg.matrix_norm(self.one.weight, 2))


def test_backbones_that_cannot() -> None:
    with pytest.raises(bt.UserError, match="Spectral does not run with weights in int8: "):
        grow_small(Spectral(), target_modules=["one", "two"]).low_memory("int8")
    grow_small(Spectral(), target_modules=["one", "two"]).low_memory("bfloat16")
    convolutions = grow("mobilenetv4_conv_small", TREES["interleaved"], bt.LoRA(r=2))
    with pytest.raises(bt.UserError, match="has no layer whose weight is smaller in int8"):
        convolutions.low_memory("int8")


def test_int8_of_float64_weights() -> None:
    with pytest.raises(bt.UserError, match=r"int8 weights cannot be made of torch.float64: use model.float\(\) first"):
        small_model().low_memory("int8")


def test_an_unknown_precision_and_a_missing_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bt.UserError, match=r"unknown precision 'int4'.*bfloat16"):
        small_model().low_memory("int4")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(bt.UserError, match=r"torchao cannot be imported \(.*\): pip install 'branchtune\[int8\]'"):
        small_model().low_memory("int8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(bt.UserError, match=r"int8 needs torchao: pip install 'branchtune\[int8\]'"):
        small_model().low_memory("int8")


def test_a_run_keeps_no_backbone_in_full_precision(finished: Path) -> None:
    bench = Workbench(Settings.load(finished, []).config, Reporter(quiet=True))
    full = weakref.ref(bench.backbone)
    model = load_model(run_of(finished), bench, "bfloat16")
    gc.collect()
    assert full() is None
    assert isinstance(model, bt.LowMemoryModel)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_evaluate_and_predict_on_the_command_line(
    finished: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_of(finished))
    assert main(["evaluate", run, f"--low_memory={precision}", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert f"weights in {precision}" in printed
    assert any(line.split() == ["task", "metric", "value", "was"] for line in printed.splitlines())
    image, out = next((finished.parent / "nyud" / "images").iterdir()), str(tmp_path / "out")
    call = ["predict", run, str(image), "-o", out, "--quiet"]
    assert main([*call, f"--low_memory={precision}"]) == 0
    assert main(call) == 2
    assert "predictions of another model" in capsys.readouterr().err
