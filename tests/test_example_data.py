"""`branchtune example-data`: a folder that the folder layout reads as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.check import check_source
from branchtune.data.folder import FolderFiles
from branchtune.data.scenes import render_scene

SMALL = ["--train=2", "--val=1", "--new=1", "--size=[24,32]", "--quiet"]


def test_the_labels_are_those_of_the_scenes(tmp_path: Path) -> None:
    assert main(["example-data", str(tmp_path / "rooms"), *SMALL]) == 0
    tasks = [bt.SemanticSegmentation("semseg", 16), bt.Depth("depth"), bt.Normals("normals"), bt.Edges("edge")]
    source = FolderFiles.for_tasks(tmp_path / "rooms", tasks)
    assert all(summary.problems == [] and summary.usable for summary in check_source(source))
    sample, scene = source.read("train-001"), render_scene(0, 1, 24, 32)
    assert torch.equal(sample["semseg"], torch.from_numpy(scene["semseg"]).to(torch.uint8))
    assert torch.equal(sample["edge"], torch.from_numpy(scene["edge"]))
    torch.testing.assert_close(sample["depth"], torch.from_numpy(scene["depth"]), atol=6e-4, rtol=0)
    torch.testing.assert_close(sample["normals"], torch.from_numpy(scene["normals"]), atol=0.02, rtol=0)
    assert [path.name for path in (tmp_path / "rooms" / "new").iterdir()] == ["0.png"]


def test_what_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["example-data", str(tmp_path), *SMALL]) == 2
    assert "is not empty: choose another folder, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("argument", ["--train=0", "--val=0", "--new=-1", "--size=[0,32]"])
def test_numbers_that_are_too_small(argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example-data", str(tmp_path / "rooms"), *SMALL, argument]) == 2
    assert f"{argument.partition('=')[0]}: " in capsys.readouterr().err
    assert not (tmp_path / "rooms").exists()
