"""What a batch may hold: one reader for fitting decoders, measuring affinity, training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import branchtune as bt
from branchtune.affinity.collect import to_batch
from branchtune.batch import read_batch
from branchtune.decoder_fit import fit_decoders
from branchtune.evaluation.evaluate import evaluate
from branchtune.tasks.balanced_bce import balanced_bce
from branchtune.tasks.masked import masked_l1
from branchtune.training.losses import task_losses
from small_model import small_swin

SIZE = 32
TASKS = [
    bt.Depth("depth"),
    bt.Edges("edge"),
    bt.SemanticSegmentation("semseg", num_classes=3),
    bt.Normals("normals"),
    bt.ImageClassification("room", num_classes=3),
    bt.ImageRegression("count"),
]
BY_NAME = {task.name: task for task in TASKS}
DECODER = bt.LightDecoder(dim=8, stride=8)
MODEL = bt.MultiTaskModel(small_swin(), TASKS, decoder=DECODER)


def good() -> dict[str, Any]:
    normals = torch.zeros(2, 3, SIZE, SIZE)
    normals[:, 2] = -1
    return {
        "id": ["x", "y"],
        "image": torch.rand(2, 3, SIZE, SIZE),
        "depth": torch.rand(2, SIZE, SIZE) + 1,
        "edge": torch.randint(2, (2, SIZE, SIZE)).float(),
        "semseg": torch.randint(3, (2, SIZE, SIZE)),
        "normals": normals,
        "room": torch.tensor([0, 2]),
        "count": torch.rand(2, 1),
    }


def changed(key: str, change: Callable[[Tensor], Any]) -> Callable[[], Any]:
    def build() -> dict[str, Any]:
        batch = good()
        batch[key] = change(batch[key])
        return batch

    return build


def without(key: str) -> Callable[[], Any]:
    return lambda: {name: value for name, value in good().items() if name != key}


def one_bad_class(target: Tensor) -> Tensor:
    target[1, 4, 5] = 7
    return target


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "tuple": (lambda: tuple(good().values()), "a batch is a tuple, expected"),
    "no image": (without("image"), r"a batch has no 'image', only \['count', 'depth'"),
    "numpy image": (changed("image", lambda t: t.numpy()), "'image' of a batch is of type ndarray"),
    "bytes": (changed("image", lambda t: t.byte()), r"'image' of a batch is uint8 \[2, 3, 32, 32\], expected floats"),
    "one image": (changed("image", lambda t: t[0]), r"'image' of a batch is float32 \[3, 32, 32\]"),
    "empty": (changed("image", lambda t: t[:0]), r"'image' of a batch is float32 \[0, 3, 32, 32\]"),
    "ids": (changed("id", lambda ids: ids[:1]), "'id' of a batch of 2 images is"),
    "None": (changed("depth", lambda t: None), r"task 'depth' \(samples x, y\): the label is None; leave the key out"),
    "numpy": (changed("depth", lambda t: t.numpy()), "task 'depth' .*: the targets are of type ndarray"),
    "channel of a map": (
        changed("depth", lambda t: t[:, None]),
        r"task 'depth' \(samples x, y\): the targets are float32 \[2, 1, 32, 32\], expected \[2, 32, 32\]",
    ),
    "channel of edges": (changed("edge", lambda t: t[:, None]), r"task 'edge' .* \[2, 1, 32, 32\]"),
    "channel of classes": (changed("semseg", lambda t: t[:, None]), r"task 'semseg' .* \[2, 1, 32, 32\]"),
    "normals last": (changed("normals", lambda t: t.permute(0, 2, 3, 1)), r"task 'normals' .* \[2, 32, 32, 3\]"),
    "other size": (changed("depth", lambda t: t[:, ::2]), r"task 'depth' .*for 2 images of 32x32"),
    "length": (changed("depth", lambda t: t[:1]), r"task 'depth' .* \[1, 32, 32\], expected \[2, 32, 32\]"),
    "float classes": (
        changed("semseg", lambda t: t.float()),
        r"task 'semseg' .* float32 \[2, 32, 32\], expected int64 \(convert with .long\(\)\)",
    ),
    "int depth": (changed("depth", lambda t: t.int()), r"task 'depth' .* int32 .*convert with .float\(\)"),
    "class": (
        changed("semseg", one_bad_class),
        r"sample 'y': task 'semseg': the target holds 7 at \[4, 5\]: a class is 0..2, or 255",
    ),
    "negative class": (changed("semseg", lambda t: t - 2), "sample 'x': task 'semseg': the target holds -[12]"),
    "label": (changed("room", lambda t: t + 1), "sample 'y': task 'room': the target holds 3: a class is 0..2"),
    "flat numbers": (changed("count", lambda t: t[:, 0]), r"task 'count' .* float32 \[2\], expected \[2, 1\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_batch_is_refused_by_name_wherever_it_is_read(case: str) -> None:
    build, message = BAD[case]
    readers: list[Callable[[], Any]] = [
        lambda: fit_decoders(MODEL, [build()], 1, 1e-3),
        lambda: to_batch(MODEL, build(), 2, ()),
        lambda: task_losses({}, build(), BY_NAME),
        lambda: evaluate(MODEL, [build()]),
    ]
    for read in readers:
        with pytest.raises(bt.UserError, match=message) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_good_batch_is_read_as_it_is() -> None:
    raw = good()
    batch = read_batch(raw, BY_NAME)
    assert batch.ids == ["x", "y"]
    assert torch.equal(batch.images, raw["image"])
    for name in BY_NAME:
        assert torch.equal(batch.targets[name], raw[name])
        assert batch.labelled[name].tolist() == [True, True]


def test_a_task_without_label_is_absent_and_ignored_classes_are_no_class() -> None:
    raw = good()
    raw["semseg"][:] = 255
    raw["room"][0] = -100
    del raw["depth"], raw["id"]
    batch = read_batch(raw, BY_NAME)
    assert set(batch.targets) == set(BY_NAME) - {"semseg", "depth"}
    assert batch.labelled["room"].tolist() == [False, True]
    assert batch.ids == [0, 1]


def test_the_first_samples_in_another_precision() -> None:
    batch = read_batch(good() | {"id": torch.tensor([4, 7])}, BY_NAME, like=torch.zeros(1).double(), limit=1)
    assert batch.images.dtype == torch.float64
    assert [len(batch.images), *map(len, batch.targets.values())] == [1] * (1 + len(TASKS))
    assert batch.ids == [4]


@pytest.mark.parametrize("mask", [None, np.ones(2), torch.ones(3)])
def test_inputs_of_the_backbone_have_a_row_per_image(mask: Any) -> None:
    raw = good() if mask is None else good() | {"mask": mask}
    with pytest.raises(bt.UserError, match="'mask'"):
        read_batch(raw, BY_NAME, inputs=["mask"])


def test_losses_do_not_broadcast() -> None:
    output, target = torch.zeros(2, 4, 4), torch.zeros(2, 1, 4, 4)
    with pytest.raises(bt.UserError, match=r"output \[2, 4, 4\] and the target \[2, 1, 4, 4\]"):
        masked_l1(output, target, ~target.isnan())
    with pytest.raises(bt.UserError, match="differ in shape"):
        balanced_bce(output, target)
    with pytest.raises(bt.UserError, match="differ in shape"):
        bt.ImageRegression("count").loss(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_decoders_and_affinity_fit_inside_no_grad_and_inference_mode(mode: Any) -> None:
    def measure() -> bt.Affinity:
        torch.manual_seed(0)
        loader = [good(), good()]
        return bt.measure_affinity(
            small_swin(), TASKS[:2], loader, adapter=bt.LoRA(r=2), decoder=DECODER, decoder_steps=2
        )

    expected = measure()
    with mode():
        found = measure()
    assert np.array_equal(found.overall, expected.overall)


def test_one_task_is_a_list_of_one() -> None:
    found = bt.measure_affinity(
        small_swin(), bt.Depth("depth"), [good(), good()], adapter=bt.LoRA(r=2), decoder=DECODER, decoder_steps=0
    )  # type: ignore[arg-type]
    assert found.tasks == ("depth",)
