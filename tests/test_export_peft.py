"""`export_peft`: folders that PEFT itself loads onto a plain backbone, with the features of each task's path."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import timm
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

import branchtune as bt
from branchtune.backbone.clone import clone_sharing_weights
from branchtune.cli.main import main
from branchtune.errors import UserError
from branchtune.shipping import export_peft as module
from contract_backbones import CONTRACTS, TREES, grow, randomise, relative_error, traced
from exported_models import names, tokens_model
from finished_run import run_of
from shipping_models import model_on, swin
from small_backbones import TREE, Tokens

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "decoder.safetensors"]
RANKS = bt.LoRA(r=2, lora_alpha=6, rank_pattern={1: 4, 3: 1}, alpha_pattern={2: 5.0, 3: 0.5})


def path_features(model: bt.MultiTaskModel, task: str, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return model.backbone(images, [task])[task]


def snippets(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_each_task_loads_with_peft_alone_and_gives_its_paths_features(tmp_path: Path) -> None:
    """Ranks and scales that differ by level, extras that trained."""
    torch.manual_seed(0)
    backbone = timm.create_model("test_vit", pretrained=False, img_size=32, num_classes=0)
    tasks = [bt.Depth("b"), bt.ImageClassification("c", num_classes=3)]
    tree = bt.TaskTree([[["b", "c"]]] * 2 + [[["b"], ["c"]]] * 2)
    decoder = bt.LightDecoder(8, 8)
    model = bt.MultiTaskModel(backbone, tasks, tree, RANKS, decoder, extras=["norms", "patch_embed"], image_size=32)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        nn.init.normal_(parameter, std=0.2)
    report = bt.export_peft(model.eval(), tmp_path / "out")
    assert names(tmp_path / "out") == ["b", "c"]
    assert max(report.differences.values()) < 1e-10
    images = torch.randn(2, 3, 32, 32).double()
    exact = model.double()
    for task in ("b", "c"):
        assert names(tmp_path / "out" / task) == FILES
        plain = clone_sharing_weights(backbone)
        adapted = PeftModel.from_pretrained(plain, tmp_path / "out" / task).double().eval()
        maps = adapted.get_base_model().forward_intermediates(
            images, indices=[int(level.end.removeprefix("blocks.")) for level in model.spec.levels],
            norm=False, intermediates_only=True,
        )  # fmt: skip
        for found, expected in zip(maps, path_features(exact, task, images), strict=True):
            assert relative_error(found, expected) < 1e-8
        config = json.loads((tmp_path / "out" / task / "adapter_config.json").read_text())
        assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 6)
        assert set(config["rank_pattern"].values()) == {4, 1}


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backbone whose weights lie in a file: the snippets make everything, decoder and output included."""
    model = model_on(swin(tmp_path), adapter=RANKS, extras=("norms",))
    bt.export_peft(model, tmp_path / "out", tasks=["a", "c"])
    assert names(tmp_path / "out") == ["a", "c"]
    (tmp_path / "weights0.safetensors").rename(tmp_path / "out" / "weights0.safetensors")
    monkeypatch.chdir(tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    for task in ("a", "c"):
        scope: dict[str, Any] = {"images": images}
        for code in snippets(Path(task)):
            exec(code, scope)
        with torch.no_grad():
            assert relative_error(scope["output"], model(images)[task]) < 1e-5
            assert scope["features"].shape[0] == 2
        assert "32x32 pixels" in Path(task, "README.md").read_text()


def test_the_readme_says_what_nothing_can_tell_of_a_model_of_timm(tmp_path: Path) -> None:
    """Whether it holds the published weights: PEFT would load the adapter on any."""
    bt.export_peft(model_on(timm.create_model("test_vit", pretrained=False, in_chans=4)), tmp_path / "out")
    text = Path(tmp_path, "out", "a", "README.md").read_text()
    creation = "backbone = timm.create_model('test_vit.r160_in1k', pretrained=True, num_classes=0, in_chans=4, "
    assert f"# If the model was trained on other weights, load them here: PEFT cannot tell.\n{creation}" in text
    assert "of 4 channels, normalised as they were in training" in text


class Convolutions(nn.Module):
    """A strided 1x1, a grouped 3x3 and a plain 3x3 convolution."""

    def __init__(self, **last: Any) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1, stride=2)
        self.two, self.three = nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.Conv2d(12, 12, 3, **{"padding": 1, **last})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.three(torch.tanh(self.two(torch.tanh(self.one(self.stem(images))))))


def convolutions(**last: Any) -> bt.MultiTaskModel:
    adapter = bt.LoRA(r=2, rank_pattern={1: 3}, target_modules=["one", "two", "three"])
    tasks, levels = [bt.Depth("b"), bt.Depth("c")], ["one", "two:three"]
    model = bt.MultiTaskModel(
        Convolutions(**last), tasks, TREE, adapter, bt.LightDecoder(8), levels=levels, image_size=32
    )
    return randomise(model.eval())


def test_convolutions_with_a_stride_and_with_groups(tmp_path: Path) -> None:
    model = convolutions()
    bt.export_peft(model, tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    for task in ("b", "c"):
        with pytest.warns(UserWarning, match="groups > 1"):
            adapted = PeftModel.from_pretrained(clone_sharing_weights(model.backbone.frozen), tmp_path / "out" / task)
        with torch.no_grad():
            assert relative_error(adapted(images), path_features(model, task, images)[-1]) < 1e-5
    weights = load_file(tmp_path / "out" / "b" / "adapter_model.safetensors")
    assert weights["base_model.model.two.lora_A.weight"].shape == (12, 8, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"adapter": bt.Bottleneck()}, "PEFT has no Bottleneck adapter, only LoRA"),
        ({"adapter": bt.Comb(r=2), "tree": None}, "PEFT has no Comb adapter"),
        ({"adapter": None, "tree": None}, "no adapter that PEFT could hold"),
        ({"adapter": None, "tree": None, "train_backbone": True}, "fine-tuned as a whole"),
        ({"extras": ("relative_position",)}, r"cannot hold the extra '.*relative_position_bias_table': it saves whole"),
    ],
)
def test_what_peft_cannot_hold_is_refused(arguments: dict[str, Any], expected: str, tmp_path: Path) -> None:
    model = model_on(swin(tmp_path), **arguments)
    with pytest.raises(UserError, match=expected) as caught:
        bt.export_peft(model, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["weights0.safetensors"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"groups": 12}, "no LoRA of the depthwise convolution 'three'"),
        ({"dilation": 2, "padding": 2}, "ignores the dilation of 'three'"),
    ],
)
def test_convolutions_that_peft_cannot_hold(last: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        bt.export_peft(convolutions(**last), tmp_path / "out")
    assert names(tmp_path) == []


def test_features_that_differ_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="other features than the model for task 'b' at the end of level 0"):
        bt.export_peft(tokens_model(), tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "calibration.txt"), KeyboardInterrupt()])
def test_what_stops_the_backbones_own_code_is_not_taken_for_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stops(*_: object) -> None:
        raise error

    model = tokens_model()
    monkeypatch.setattr(Tokens, "tokens", stops)
    with pytest.raises(type(error)) as caught:
        bt.export_peft(model, tmp_path / "out")
    assert caught.value is error
    assert names(tmp_path) == []


def test_only_a_folder_of_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bt.export_peft(tokens_model(), out)
    with pytest.raises(UserError, match="out exists: choose another path"):
        bt.export_peft(tokens_model(), out)
    bt.export_peft(tokens_model(), out, tasks=["b"], overwrite=True)
    assert names(out) == ["b"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'notes.txt', which no PEFT export wrote"):
        bt.export_peft(tokens_model(), out, overwrite=True)
    assert names(out) == ["b", "notes.txt"]
    (out / "notes.txt").rename(out / "b" / "notes.txt")
    with pytest.raises(UserError, match=r"holds 'b/notes.txt', which no PEFT export wrote: choose another folder"):
        bt.export_peft(tokens_model(), out, overwrite=True)
    assert names(out / "b") == sorted([*FILES, "notes.txt"])
    (out / "b" / "notes.txt").unlink()
    (out / "b" / "decoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds 'b', which no PEFT export wrote"):
        bt.export_peft(tokens_model(), out, overwrite=True)
    with pytest.raises(UserError, match="unknown task 'd'"):
        bt.export_peft(tokens_model(), tmp_path / "new", tasks=["d"])
    with pytest.raises(UserError, match=r"tasks=3: pass a list of names, such as \['b'\]"):
        bt.export_peft(tokens_model(), tmp_path / "new", tasks=3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="model is of type Tokens: pass a MultiTaskModel"):
        bt.export_peft(Tokens(), tmp_path / "new")  # type: ignore[arg-type]


def test_peft_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs peft: pip install 'branchtune\[peft\]'"):
        bt.export_peft(tokens_model(), tmp_path / "out")


def test_warnings_that_torch_logs_about_other_packages_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, plain, shown = logging.getLogger("torch.utils._pytree"), peft.get_peft_model, list[Any]()

    def with_torchao(*arguments: Any) -> Any:
        logger.warning("<enum 'KernelPreference'> is an Enum subclass")  # where peft imports torchao for the first time
        return plain(*arguments)

    monkeypatch.setattr(logger, "handle", shown.append)
    monkeypatch.setattr(peft, "get_peft_model", with_torchao)
    bt.export_peft(tokens_model(), tmp_path / "out")
    assert shown == []


def test_the_command_on_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run_of(finished)), "--format=peft", "--tasks=[depth,edge]"]) == 0
    assert "wrote tiny-peft: a LoRA of PEFT and a decoder per task" in capsys.readouterr().out
    assert names(tmp_path / "tiny-peft") == ["depth", "edge"]
    assert "# backbone: the module that the model was trained on" in snippets(tmp_path / "tiny-peft" / "depth")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_backbone(name: str, tmp_path: Path) -> None:
    """Compared with timm's own way to the features too, where it reads the same ones."""
    model = randomise(grow(name, TREES["interleaved"], RANKS, extras=("norms",)), 0.1)
    report = bt.export_peft(model, tmp_path / "out")
    assert max(report.differences.values()) < 1e-8
    backbone, ends = traced(name)[0], [level.end for level in model.spec.levels]
    info = {entry["module"]: index for index, entry in enumerate(getattr(backbone, "feature_info", None) or [])}
    if not (set(ends) <= set(info) and hasattr(backbone, "forward_intermediates")):
        return
    images = CONTRACTS[name].images(2)
    adapted = PeftModel.from_pretrained(clone_sharing_weights(backbone), tmp_path / "out" / "c").eval()
    indices = [info[end] for end in ends]
    with torch.no_grad():
        maps = adapted.get_base_model().forward_intermediates(
            images, indices=indices, norm=False, intermediates_only=True
        )
    for found, expected in zip(maps, path_features(model, "c", images), strict=True):
        assert relative_error(found, expected) < 1e-4
