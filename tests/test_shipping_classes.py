"""Tasks, adapters and decoders as JSON: class path and constructor arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import branchtune as bt
from branchtune.adapters.adapter import Adapter
from branchtune.decoders.decoder import Decoder
from branchtune.errors import UserError
from branchtune.shipping.classes import describe, rebuild
from branchtune.tasks.task import Task


class Height(bt.Depth):
    """Keeps what its constructor takes under the same names."""

    def __init__(
        self, name: str, smoothing: float = 0.1, *, bins: tuple[int, ...] = (1, 2), num_outputs: int = 1
    ) -> None:
        super().__init__(name, weight=2.0)
        self.smoothing, self.bins, self.out_channels = smoothing, bins, num_outputs


class Forgetful(bt.Depth):
    def __init__(self, name: str, smoothing: float = 0.1) -> None:
        super().__init__(name)
        self._smoothing = smoothing


class Doubling(bt.Depth):
    def __init__(self, name: str, scale: float = 1.0) -> None:
        super().__init__(name)
        self.scale = 2 * scale


class Weighted(bt.Depth):
    def __init__(self, name: str, class_weights: Tensor) -> None:
        super().__init__(name)
        self.class_weights = class_weights


class Passing(bt.Edges):
    """Hands on what it does not name."""

    def __init__(self, name: str, *more: Any, **options: Any) -> None:
        super().__init__(name, *more, **options)


@dataclass(frozen=True)
class Wide(bt.LightDecoder):
    widths: tuple[int, ...] = (3, 4)
    names: dict[str, int] = field(default_factory=dict)
    window: tuple[int, int] | None = None


def through_json(thing: object, base: type) -> Any:
    return rebuild(json.loads(json.dumps(describe(thing))), base)


TASKS = [
    bt.SemanticSegmentation("t", num_classes=40, weight=0.5),
    bt.HumanParts("t", num_classes=5),
    bt.Saliency("t", weight=3),
    bt.Normals("t"),
    bt.Depth("t", 2),
    bt.Edges("t", positive_weight=0.8, match_dist=0.011),
    bt.ImageClassification("t", 7),
    bt.ImageRegression("t", num_outputs=3),
    Height("t", 0.5, bins=(4, 5, 6), num_outputs=2),
    Passing("t"),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_every_task(task: Task) -> None:
    again = through_json(task, Task)
    assert type(again) is type(task)
    assert vars(again) == vars(task)


def test_every_exported_task_is_tried_above() -> None:
    exported = {getattr(bt, name) for name in bt.__all__ if name not in ("Affinity", "measure_affinity", "plan")}
    tasks = {cls for cls in exported if isinstance(cls, type) and issubclass(cls, Task) and cls is not Task}
    assert tasks <= {type(task) for task in TASKS}


@pytest.mark.parametrize(
    "thing",
    [
        bt.LoRA(r=4, lora_alpha=2, lora_dropout=0.5, target_modules=["qkv"], rank_pattern={1: 2, 3: 8}),
        bt.LoRA(target_modules=".*fc1"),
        bt.Bottleneck(reduction=2.5, activation="silu"),
        bt.LightDecoder(dim=16, stride=2),
        bt.HRNetDecoder(widths=(1, 2, 3), expansion=2),
        Wide(dim=8, widths=(9,), names={"x": 1}),
        Wide(window=(2, 3)),
    ],
    ids=repr,
)
def test_every_adapter_and_decoder(thing: object) -> None:
    base = Adapter if isinstance(thing, Adapter) else Decoder
    assert through_json(thing, base) == thing


def test_what_changed_after_construction_is_saved() -> None:
    task = bt.Depth("t")
    task.weight = 7.0
    assert through_json(task, Task).weight == 7.0


def test_the_paths_are_the_public_ones() -> None:
    assert describe(bt.LoRA())["class"] == "branchtune.LoRA"
    assert describe(Height("t"))["class"] == f"{__name__}.Height"


class LocalTests:
    class Inner(bt.Depth):
        pass


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (LocalTests.Inner("t"), r"LocalTests.Inner cannot be imported when the model is loaded: define the class at"),
        (Forgetful("t"), r"Forgetful does not keep its argument 'smoothing': write self.smoothing = smoothing"),
        (Doubling("t", 3.0), r"Doubling: created with .*6.0.* it has .*12.0.*: keep each argument as it was passed"),
        (
            Passing("t", weight=7.0),
            r"Passing takes .*, and made without them its weight is 50.0, not 7.0: give __init__ an argument 'weight'",
        ),
        (Weighted("t", torch.ones(2)), r"Weighted: its arguments cannot be saved as JSON \(.*Tensor.*\): keep numbers"),
    ],
)
def test_classes_that_cannot_be_described(thing: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        describe(thing)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry", [None, [], {}, {"class": 3, "args": {}}, {"class": "branchtune.LoRA", "args": 3}, "x"]
)
def test_what_describes_nothing(entry: Any) -> None:
    with pytest.raises(UserError, match="does not describe an object"):
        rebuild(entry, Adapter)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval", "branchtune.tree.TaskTree"])
def test_nothing_else_is_called(path: str) -> None:
    with pytest.raises(UserError, match=f"{path} is no Adapter: the file names the wrong class"):
        rebuild({"class": path, "args": {}}, Adapter)
