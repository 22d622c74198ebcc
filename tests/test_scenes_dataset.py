"""`Scenes`: items, caching, preparation in other processes, errors."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

import branchtune as bt
from branchtune.config import DataConfig
from branchtune.data.augmentation import Augmentation
from branchtune.data.scenes import DENSE_LABELS, Scenes, render_scene
from branchtune.errors import UserError
from branchtune.run.loaders import make_dataset

SIZE = (32, 48)


def test_items_are_the_rendered_scenes():
    data = Scenes("val", 5, SIZE, seed=2, tasks=(*DENSE_LABELS, "presence", "wall_texture"))
    assert len(data) == 5
    item, scene = data[3], render_scene(2, 3, *SIZE, split="val")
    assert item["id"] == "val-000003"
    assert set(item) == {"id", "image", *DENSE_LABELS, "presence", "wall_texture"}
    restored = item["image"] * 0.25 + 0.5
    torch.testing.assert_close(restored, torch.from_numpy(scene["image"]), atol=0.5 / 255 + 1e-6, rtol=0)
    for name in set(item) - {"id", "image"}:
        expected = torch.tensor(scene[name])
        assert item[name].dtype == expected.dtype
        atol = 1e-3 if name == "normals" else 0
        torch.testing.assert_close(item[name], expected, atol=atol, rtol=0, equal_nan=True)
    torch.testing.assert_close(item["normals"].norm(dim=0), torch.ones(SIZE), atol=1e-5, rtol=0)


def test_only_the_requested_tasks_are_yielded():
    item = Scenes("train", 1, SIZE, tasks=["depth"])[0]
    assert set(item) == {"id", "image", "depth"}
    assert set(Scenes("train", 1, SIZE)[0]) == {"id", "image", *DENSE_LABELS}


def test_an_index_may_carry_an_epoch():
    data = Scenes("train", 2, SIZE, tasks=["edge"])
    torch.testing.assert_close(data[(7, 1)]["image"], data[1]["image"], atol=0, rtol=0)


def test_a_scene_is_rendered_once(monkeypatch):
    data = Scenes("train", 2, SIZE, tasks=["depth"])
    first = data[0]
    monkeypatch.setattr(data, "_render", None)
    second = data[0]
    torch.testing.assert_close(first["image"], second["image"], atol=0, rtol=0)
    second["depth"].zero_()
    assert data[0]["depth"].min() > 0, "an item is the caller's own"


def test_mean_and_std_normalise():
    raw = Scenes("train", 1, SIZE, tasks=[], mean=(0, 0, 0), std=(1, 1, 1))[0]["image"]
    item = Scenes("train", 1, SIZE, tasks=[], mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))[0]["image"]
    expected = (raw - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 0.2])[:, None, None]
    torch.testing.assert_close(item, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_renders_everything_up_front(workers, monkeypatch):
    data, lazy = (Scenes("test", 3, SIZE, tasks=["semseg"]) for _ in range(2))
    expected = [lazy[i] for i in range(3)]
    seen = []
    data[1]
    data.prepare(lambda done, total: seen.append((done, total)), workers=workers)
    assert seen == [(2, 3), (3, 3)]
    monkeypatch.setattr(data, "_render", None)
    for i in range(3):
        torch.testing.assert_close(data[i]["semseg"], expected[i]["semseg"], atol=0, rtol=0)


def test_a_copy_in_another_process_keeps_what_was_rendered(monkeypatch):
    data = Scenes("train", 1, SIZE, tasks=["depth"])
    data.prepare()
    copy = pickle.loads(pickle.dumps(data))
    monkeypatch.setattr(copy, "_render", None)
    torch.testing.assert_close(copy[0]["depth"], data[0]["depth"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": Augmentation()}, r"data.augmentation has no effect on scenes.*\(--data.augmentation=null\)"),
        ({"on_bad": "skip"}, r"data.on_bad has no effect on scenes.*\(--data.on_bad=refuse\)"),
    ],
)
def test_settings_that_are_for_files_are_refused(changes, message):
    normalisation = ((0.5,) * 3, (0.25,) * 3)
    plain = DataConfig(train_size=1, interpolation="cubic")  # of images to predict
    assert len(make_dataset(plain, "train", [bt.Depth("depth")], *normalisation, seed=0)) == 1
    with pytest.raises(UserError, match=message):
        make_dataset(dataclasses.replace(plain, **changes), "train", [bt.Depth("depth")], *normalisation, seed=0)


def test_errors_name_the_thing_and_the_way_out():
    with pytest.raises(UserError, match="unknown label 'dept': did you mean 'depth'"):
        Scenes("train", 1, SIZE, tasks=["dept"])
    with pytest.raises(UserError, match="unknown split 'vall': did you mean 'val'"):
        Scenes("vall", 1, SIZE)
    with pytest.raises(UserError, match="count is 0"):
        Scenes("train", 0, SIZE)
    with pytest.raises(UserError, match="image_size"):
        Scenes("train", 1, (0, 8))
    with pytest.raises(IndexError, match="scene 1 of 1"):
        Scenes("train", 1, SIZE)[1]
