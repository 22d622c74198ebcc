"""Outputs brought to an image's own size: in strips, and the same as at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import branchtune as bt
from branchtune.decoders.resample import resized_rows
from branchtune.run import array_files
from branchtune.run.array_files import too_large, write_scores
from branchtune.run.inference import ImageOutput


@pytest.mark.parametrize("size", [(33, 47), (9, 5), (12, 16), (1, 1), (100, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_those_of_the_whole(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 12, 16, dtype=dtype)
    whole = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    parts = [resized_rows(x, size, range(top, min(top + 7, size[0]))) for top in range(0, size[0], 7)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=tolerance)


def test_strips_change_no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ImageOutput(bt.SemanticSegmentation("s", 5), torch.randn(5, 12, 16), (61, 35))
    normals = ImageOutput(bt.Normals("n"), torch.randn(3, 12, 16), (61, 35))
    whole = classes.prediction(), normals.prediction(), classes.scores()
    assert [tuple(value.shape) for value in whole] == [(61, 35), (3, 61, 35), (5, 61, 35)]
    monkeypatch.setattr("branchtune.run.inference.STRIP", 400)
    assert len(list(classes.strips())) == 31
    for one, many in zip(whole, (classes.prediction(), normals.prediction(), classes.scores()), strict=True):
        assert torch.equal(one, many)
    torch.testing.assert_close(normals.prediction().square().sum(0), torch.ones(61, 35))


def test_scores_are_written_strip_by_strip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.run.inference.STRIP", 400)
    output = ImageOutput(bt.SemanticSegmentation("s", 5), torch.randn(5, 12, 16), (61, 35))
    write_scores(tmp_path / "scores.npy", output)
    written = np.load(tmp_path / "scores.npy")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, output.scores().numpy())
    np.testing.assert_array_equal(written.argmax(0), output.prediction().numpy())


def test_scores_of_a_large_image_are_refused() -> None:
    tasks = [bt.SemanticSegmentation("few", 3), bt.SemanticSegmentation("many", 40)]
    assert too_large(tasks, (3000, 4000)) is None
    assert too_large(tasks, (4000, 5000)) == (
        "the scores of many would take 3.2 GB (40 classes, 4000 x 5000 pixels; at most 2 GB): leave out --scores, or "
        "make the image smaller"
    )
    assert array_files.MOST_SCORES == 2_000_000_000
