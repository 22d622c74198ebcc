"""`Affinity` and the backbone's description survive JSON and the disk; what is no affinity is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import branchtune.affinity
from affinity_cases import PLAIN_LEVELS, Fit, Plain, batches, made_up_spec, swin
from branchtune.affinity import Affinity, measure_affinity
from branchtune.backbone.spec import BackboneSpec
from branchtune.backbone.spec_json import spec_from_json, spec_to_json
from branchtune.backbone.trace import trace_backbone
from branchtune.decoders.light import LightDecoder
from branchtune.errors import UserError

SPEC = made_up_spec([(100, 4), (200, 8)])
MATRIX = np.array([[1.0, 0.4], [0.4, 1.0]])


class Attending(nn.Module):
    """A block that takes a mask by position and a scale by keyword, both carrying the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor, *, scale: Tensor) -> Tensor:
        return self.fc1(x) * mask * scale


class WithSideInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, 8)
        self.block = Attending()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).mT
        return self.block(
            tokens, mask[:, None, None], scale=mask.repeat_interleave(tokens.shape[1]).view(-1, tokens.shape[1], 1)
        )


def spec_with_side_inputs() -> BackboneSpec:
    spec = trace_backbone(WithSideInputs(), ["block"], 32, {"mask": torch.full((1,), 2.0)})
    assert {type(key) for found in spec.side_inputs for key in found.rows} == {int, str}
    return spec


SPECS = {
    "swin": lambda: trace_backbone(swin()),
    "plain": lambda: trace_backbone(Plain(), PLAIN_LEVELS, 32),
    "side inputs": spec_with_side_inputs,
    "indices": lambda: BackboneSpec(**{**vars(SPEC), "feature_indices": (1, 2), "dead": {"x.qkv": "unused"}}),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_backbone_description_survives_json(name: str) -> None:
    spec = SPECS[name]()
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


@pytest.mark.parametrize("damage", [{"levels": [{}]}, {"sites": 3}, {"colour": "red"}])
def test_what_is_no_backbone_description(damage: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not a description of a backbone"):
        spec_from_json({**spec_to_json(SPEC), **damage})
    with pytest.raises(UserError, match="not a description of a backbone"):
        spec_from_json({})


def test_a_measured_affinity_survives_the_disk(tmp_path: Path) -> None:
    tasks = [Fit("b"), Fit("a")]
    torch.manual_seed(0)
    found = measure_affinity(
        Plain(),
        tasks,
        batches(tasks, images=2, batch=2),
        levels=PLAIN_LEVELS,
        image_size=32,
        decoder=LightDecoder(dim=8),
        decoder_steps=1,
    )
    assert np.isnan(found.overall_error).all()  # two samples say nothing of the error
    path = tmp_path / "run" / "affinity.json"
    found.save(path)
    loaded = Affinity.load(path)
    assert loaded == found
    assert loaded.tasks == ("b", "a")
    assert loaded.samples == {"b": 2, "a": 2}
    assert loaded.spec == found.spec
    assert loaded.decoders is None
    np.testing.assert_array_equal(loaded.per_level, found.per_level)
    assert [file.name for file in path.parent.iterdir()] == ["affinity.json"]
    assert json.loads(path.read_text())["format"] == 1


def test_from_json_takes_the_text_too() -> None:
    affinity = Affinity.from_matrix("ab", MATRIX, SPEC)
    assert Affinity.from_json(json.dumps(affinity.to_json())) == affinity
    assert affinity != Affinity.from_matrix("ac", MATRIX, SPEC)


def test_missing_damaged_and_newer_files(tmp_path: Path) -> None:
    path = tmp_path / "affinity.json"
    with pytest.raises(UserError, match=r"no affinity at '.*affinity.json'"):
        Affinity.load(path)
    affinity = Affinity.from_matrix("ab", MATRIX, SPEC)
    affinity.save(path)
    text = path.read_text()
    for damaged in (text[: len(text) // 2], "[]", "{}", text.replace("overall", "overalls")):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"affinity.json: not an affinity .*measure it again"):
            Affinity.load(path)
    path.write_text(json.dumps({**json.loads(text), "format": 2}))
    with pytest.raises(UserError, match=r"format 2 is newer .*update branchtune"):
        Affinity.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        Affinity.load(path)


def test_shapes_and_symmetry_are_checked() -> None:
    with pytest.raises(UserError, match=r"overall has shape \(2, 2\), expected \(3, 3\)"):
        Affinity.from_matrix("abc", MATRIX, SPEC)
    with pytest.raises(UserError, match="per_level has shape"):
        Affinity.from_matrix("ab", MATRIX, SPEC, per_level=np.stack([MATRIX] * 3))
    with pytest.raises(UserError, match="not symmetric or not finite"):
        Affinity.from_matrix("ab", [[1, 0.5], [0.4, 1]], SPEC)
    with pytest.raises(UserError, match="not symmetric or not finite"):
        Affinity.from_matrix("ab", np.full((2, 2), np.nan), SPEC)
    with pytest.raises(UserError, match="distinct names"):
        Affinity.from_matrix("aa", MATRIX, SPEC)


def with_errors(overall: list[list[float]], errors: list[list[float]]) -> Affinity:
    count = len(overall)
    level = np.stack([overall] * 2)
    names = ("a", "b", "c")[:count]
    return Affinity(names, np.array(overall), level, np.array(errors), np.zeros_like(level), SPEC)


def test_the_correction_divides_by_how_much_tasks_agree_with_themselves() -> None:
    affinity = with_errors([[0.25, 0.2], [0.2, 0.16]], [[0.01, 0.0], [0.0, 0.01]])
    np.testing.assert_allclose(affinity.corrected(), [[1, 1], [1, 1]])
    opposite = with_errors([[0.25, -0.1], [-0.1, 0.16]], [[0.01, 0.0], [0.0, 0.01]])
    np.testing.assert_allclose(opposite.corrected(), [[1, -0.5], [-0.5, 1]])


@pytest.mark.parametrize(("error", "expected"), [(0.0, -0.5), (0.05, -0.375), (0.1, 0.0), (0.3, 0.0), (np.nan, -0.5)])
def test_the_correction_shrinks_what_may_be_noise_to_zero(error: float, expected: float) -> None:
    affinity = with_errors([[0.25, -0.1], [-0.1, 0.16]], [[0.01, error], [error, 0.01]])
    np.testing.assert_allclose(affinity.corrected()[0, 1], expected)


def test_a_task_that_hardly_agrees_with_itself_still_agrees_with_another() -> None:
    """Depth on NYU: its own agreement was 1.9 standard errors, that with segmentation 6.7."""
    affinity = with_errors([[0.0029, 0.0009], [0.0009, 0.0017]], [[0.0004, 0.0], [0.0, 0.0009]])
    np.testing.assert_allclose(affinity.corrected()[0, 1], 0.0009 / np.sqrt(0.0029 * 0.0018))


def test_an_own_agreement_of_two_samples_is_not_taken_as_exact() -> None:
    """Without one of them no pair is left, and its error is unknown: 0.01 / sqrt(0.001 * 0.02) would be 1."""
    affinity = with_errors([[0.001, 0.01], [0.01, 0.02]], [[np.nan, 0.0], [0.0, 0.001]])
    np.testing.assert_allclose(affinity.corrected(), [[1, 0.01], [0.01, 1]])


def test_a_negative_diagonal_is_no_reason_to_fail() -> None:
    affinity = with_errors([[-0.01, 0.02], [0.02, 0.5]], [[np.nan, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(affinity.corrected(), [[1, 0.02], [0.02, 1]])
    np.testing.assert_allclose(affinity.corrected(level=0), [[1, 0.02], [0.02, 1]])


def test_the_text_shows_every_entry_with_its_error() -> None:
    affinity = with_errors([[0.25, -0.1], [-0.1, 0.16]], [[0.01, np.nan], [np.nan, 0.03]])
    lines = str(affinity).splitlines()
    assert lines[0].startswith("affinity on paper: cosine of gradients of the adapters")
    assert lines[1].split() == ["a", "b"]
    assert lines[2].split() == ["a", "0.250", "±0.010", "-0.100"]
    assert lines[3].split() == ["b", "-0.100", "0.160", "±0.030"]
    assert lines[4] == "without the noise of single samples, as the plan takes it:"
    assert lines[6].split() == ["a", "1.00", "-0.50"]


def test_small_cosines_are_shown_to_the_digits_of_their_errors() -> None:
    affinity = with_errors([[0.0031, 0.0008], [0.0008, 0.0022]], [[0.00042, 0.0003], [0.0003, 0.0004]])
    assert str(affinity).splitlines()[2].split() == ["a", "0.00310", "±0.00042", "0.00080", "±0.00030"]


def test_many_tasks_are_read_at_80_columns() -> None:
    tasks = [f"task_{i}" for i in range(12)]
    spec = made_up_spec([(10, 1)])
    lines = str(Affinity.from_matrix(tasks, np.full((12, 12), -0.125), spec)).splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).count("-0.125") == 12 * 12
    assert [len(line.split()) - 1 for line in lines if line.startswith("task_11")] == [8, 4]


def test_reading_and_planning_need_no_torch() -> None:
    code = (
        "import sys, branchtune.affinity, branchtune.planning; from branchtune import Affinity, plan; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'measure_it'"):
        _ = branchtune.affinity.measure_it
