"""The loader on the real set: `BRANCHTUNE_NYU` names an expanded tree, or the sibling data folder is expanded here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import branchtune as bt
from branchtune.data.augmentation import Augmentation
from branchtune.data.collate import Collate
from branchtune.data.nyud import NYUD
from nyud_tree import nyud_tasks

pytestmark = pytest.mark.data
EXPAND = Path(__file__).parents[2] / "shared" / "data" / "nyu" / "expand.py"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FX, FY, CX, CY = 259.4, 259.7, 162.8, 126.9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "BRANCHTUNE_NYU" in os.environ:
        return Path(os.environ["BRANCHTUNE_NYU"])
    if not EXPAND.exists():
        pytest.skip("set BRANCHTUNE_NYU to an expanded NYUD_MT tree")
    out = tmp_path_factory.mktemp("nyud")
    subprocess.run([sys.executable, EXPAND, out], check=True)
    return out


def test_the_whole_set_has_795_and_327_images_and_39_classes(root: Path):
    classes: set[int] = set()
    for split, count in (("train", 795), ("val", 327)):
        dataset = NYUD(root, split, [bt.SemanticSegmentation("semseg", num_classes=39)], (60, 80), **IMAGENET)
        assert len(dataset) == count
        for index in range(0, count, 5):
            classes.update(dataset[index]["semseg"].unique().tolist())
    assert classes == {*range(39), 255}


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_batches_pass_every_check(root: Path, split: str):
    dataset = NYUD(root, split, nyud_tasks(), (192, 256), augmentation=Augmentation(), **IMAGENET)
    batch = Collate(nyud_tasks())([dataset[index] for index in range(24)])
    assert batch["image"].shape == (24, 3, 192, 256)
    assert batch["image"].mean().abs() < 1
    assert batch["image"].std() == pytest.approx(1, abs=0.4)
    classes = batch["semseg"].unique().tolist()
    assert classes[-1] == 255
    assert len(classes) > 15
    assert batch["depth"].min() > 0.3
    assert batch["depth"].max() < 10
    assert 0.01 < batch["edge"].mean() < 0.2


def test_real_normals_face_the_camera_and_floors_point_up(root: Path):
    dataset = NYUD(root, "train", nyud_tasks(), (240, 320), **IMAGENET)
    v, u = np.mgrid[:240, :320]
    rays = torch.from_numpy(np.stack([(u - CX) / FX, (v - CY) / FY, np.ones_like(u)])).float()
    floors = []
    for index in range(24):
        sample = dataset[index]
        assert ((rays * sample["normals"]).sum(0) < 0).all()
        floors.append(sample["normals"][:, sample["semseg"] == 1])
    floor = torch.cat(floors, 1).mean(1)
    assert floor[1] < -0.6
    assert abs(floor[0]) < 0.2
