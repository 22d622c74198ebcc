from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from branchtune.data.augmentation import Augmentation
from branchtune.data.sampling import sample_generator
from branchtune.data.transforms import Transform, flip_horizontal, resized_crop
from branchtune.errors import UserError

KINDS: Any = {
    "semseg": "classes",
    "depth": "depth",
    "normals": "normals",
    "edge": "values",
    "room": "image",
    "absent": "depth",
}
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
from_1, from_2, from_3 = (st.tuples(st.integers(least, 20), st.integers(least, 20)) for least in (1, 2, 3))


def make_sample(height: int = 9, width: int = 13, seed: int = 0) -> dict[str, Any]:
    """A random raw sample with a share of ignored pixels in every map."""
    rng = torch.Generator().manual_seed(seed)
    ignored = torch.rand(height, width, generator=rng) < 0.2
    normals = torch.nn.functional.normalize(torch.randn(3, height, width, generator=rng), dim=0)
    classes = torch.randint(5, (height, width), generator=rng, dtype=torch.uint8)
    return {
        "id": "a",
        "image": torch.randint(256, (3, height, width), generator=rng, dtype=torch.uint8),
        "semseg": classes.masked_fill(ignored, 255),
        "depth": (torch.rand(height, width, generator=rng) + 1).masked_fill(ignored, torch.nan),
        "normals": normals.masked_fill(ignored, torch.nan),
        "edge": torch.rand(height, width, generator=rng).round().masked_fill(ignored, torch.nan),
        "room": 2,
    }


def same(a: Any, b: Any) -> bool:
    return torch.equal(a.nan_to_num(-7), b.nan_to_num(-7)) if isinstance(a, Tensor) else a == b


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert same(a[key], b[key]), key


@settings(deadline=None)
@given(from_1)
def test_flipping_twice_changes_nothing(size: tuple[int, int]):
    sample = make_sample(*size)
    before = {key: value.clone() if isinstance(value, Tensor) else value for key, value in sample.items()}
    assert_same(flip_horizontal(flip_horizontal(sample, KINDS), KINDS), before)
    assert_same(sample, before)


def test_a_flip_mirrors_the_scene():
    sample = make_sample()
    flipped = flip_horizontal(sample, KINDS)
    for key in ("image", "semseg", "depth", "edge"):
        assert same(flipped[key], sample[key].flip(-1))
    sign = torch.tensor([-1.0, 1, 1])[:, None, None]
    assert same(flipped["normals"], sample["normals"].flip(-1) * sign)
    assert flipped["room"] == 2


def inverse_depth_normals(depth: Tensor) -> Tensor:
    """Normals of an orthographic view of a depth map: they must follow its gradient under a flip."""
    dy, dx = torch.gradient(depth)
    return torch.nn.functional.normalize(torch.stack([dx, dy, -torch.ones_like(depth)]), dim=0)


def test_flipped_normals_are_the_normals_of_the_flipped_surface():
    ramp = 2 + 0.3 * torch.arange(8.0).repeat(6, 1) ** 1.5 + 0.1 * torch.arange(6.0)[:, None]
    sample = {"image": torch.zeros(3, 6, 8), "depth": ramp, "normals": inverse_depth_normals(ramp)}
    flipped = flip_horizontal(sample, KINDS)
    torch.testing.assert_close(flipped["normals"], inverse_depth_normals(flipped["depth"]))


@pytest.mark.parametrize("scale", [1.2, 1.5, 2.0])
def test_zooming_into_a_fronto_parallel_plane_brings_it_nearer_and_keeps_its_normal(scale: float):
    plane = {
        "image": torch.zeros(3, 12, 12, dtype=torch.uint8),
        "depth": torch.full((12, 12), 3.0),
        "normals": torch.tensor([0.0, 0, -1])[:, None, None].expand(3, 12, 12),
    }
    window = (1, 2, round(12 / scale), round(12 / scale))
    zoomed = resized_crop(plane, KINDS, window, (12, 12), scale)
    assert torch.equal(zoomed["depth"], torch.full((12, 12), 3.0) / scale)
    assert torch.equal(zoomed["normals"], plane["normals"])


@settings(deadline=None)
@given(from_3, from_2, st.integers(0, 10**6))
def test_any_transform_keeps_classes_normals_and_ignored_pixels_valid(
    size: tuple[int, int], target: tuple[int, int], seed: int
):
    sample = make_sample(*size, seed=seed)
    transform = Transform(KINDS, target, **PLAIN, augmentation=Augmentation(jitter=0.3))
    out = transform(sample, sample_generator(seed, 0, 0))
    assert out["image"].shape == (3, *target)
    assert out["image"].dtype == out["depth"].dtype == out["normals"].dtype == out["edge"].dtype == torch.float32
    assert 0 <= out["image"].min() <= out["image"].max() <= 1
    assert out["semseg"].dtype == torch.int64
    assert set(out["semseg"].unique().tolist()) <= set(sample["semseg"].unique().tolist())
    assert set(out["edge"].nan_to_num(9).unique().tolist()) <= {0.0, 1.0, 9.0}
    ignored = out["semseg"] == 255
    assert torch.equal(ignored, out["depth"].isnan())
    assert torch.equal(ignored, out["edge"].isnan())
    assert torch.equal(ignored.expand(3, *target), out["normals"].isnan())
    torch.testing.assert_close(out["normals"].norm(dim=0)[~ignored], torch.ones(int((~ignored).sum())))
    assert out["room"] == 2
    assert out["id"] == "a"
    assert "absent" not in out


def test_maps_stay_aligned_with_the_image():
    """Every channel holds the same pattern, so any window and flip must move all of them alike."""
    rng = torch.Generator().manual_seed(0)
    pattern = torch.randint(2, (5, 7), generator=rng, dtype=torch.uint8).repeat_interleave(8, 0)
    pattern = pattern.repeat_interleave(8, 1)
    sample = {"image": (pattern * 255).expand(3, 40, 56), "semseg": pattern, "edge": pattern}
    transform = Transform(KINDS, (80, 112), **PLAIN, augmentation=Augmentation())
    for index in range(10):
        out = transform(sample, sample_generator(0, 0, index))
        agree = (out["image"][0] > 0.5) == (out["semseg"] == 1)
        assert agree.float().mean() > 0.97
        assert torch.equal(out["semseg"].float(), out["edge"])


def test_a_transform_is_a_function_of_the_sample_and_the_generator():
    sample = make_sample()
    before = {key: value.clone() if isinstance(value, Tensor) else value for key, value in sample.items()}
    transform = Transform(KINDS, (9, 13), **PLAIN, augmentation=Augmentation(jitter=0.2))
    results = [transform(sample, sample_generator(0, epoch, 5)) for epoch in range(8)]
    assert_same(transform(sample, sample_generator(0, 3, 5)), results[3])
    assert len({result["image"].sum().item() for result in results}) == 8
    results[0]["depth"].zero_()
    assert_same(sample, before)


def test_without_augmentation_the_target_at_its_own_size_is_untouched():
    sample = make_sample(6, 8)
    out = Transform(KINDS, (6, 8), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))(sample, sample_generator(0, 0, 0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.1, 0.2, 0.3])
    expected = (sample["image"] / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(out["image"], expected)
    assert same(out["semseg"], sample["semseg"].long())
    for key in ("depth", "normals", "edge"):
        assert same(out[key], sample[key])
    out["depth"].zero_()
    assert not (sample["depth"] == 0).any()


def test_images_of_floats_are_taken_as_they_are():
    sample = {"image": torch.rand(3, 4, 4)}
    assert torch.equal(Transform({}, (4, 4), **PLAIN)(sample, sample_generator(0, 0, 0))["image"], sample["image"])


def draws(augmentation: Augmentation, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of many draws was flipped, and its zoom, read off a ramp of depth and a normal."""
    normals = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 4, 4)
    sample = {"image": torch.zeros(3, 4, 4), "depth": torch.ones(4, 4), "normals": normals}
    transform = Transform(KINDS, (4, 4), **PLAIN, augmentation=augmentation)
    outs = [transform(sample, sample_generator(0, 0, index)) for index in range(count)]
    return (
        np.array([out["normals"][0, 0, 0].item() < 0 for out in outs]),
        np.array([1 / out["depth"][0, 0].item() for out in outs]),
    )


def test_flips_and_zooms_come_as_often_as_asked():
    flips, scales = draws(Augmentation(flip=0.25, scales=(1.0, 2.0)))
    assert 0.18 < flips.mean() < 0.32
    assert 0.42 < (scales == 2).mean() < 0.58
    assert set(scales) == {1.0, 2.0}
    flips, scales = draws(Augmentation(flip=0.0, scales=(1.0,)), count=50)
    assert not flips.any()
    assert (scales == 1).all()
    assert draws(Augmentation(flip=1.0), count=50)[0].all()


def test_windows_reach_every_border():
    columns = torch.arange(8, dtype=torch.uint8).repeat(8, 1)
    sample = {"image": torch.zeros(3, 8, 8), "semseg": columns, "edge": columns.T}
    transform = Transform(KINDS, (4, 4), **PLAIN, augmentation=Augmentation(flip=0, scales=(2.0,)))
    outs = [transform(sample, sample_generator(0, 0, index)) for index in range(200)]
    assert {out["semseg"][0, 0].item() for out in outs} == {0, 1, 2, 3, 4}
    assert {out["edge"][0, 0].item() for out in outs} == {0, 1, 2, 3, 4}


def test_a_centred_window_leaves_equal_margins():
    sample = {
        "image": torch.zeros(3, 8, 12),
        "semseg": torch.arange(12, dtype=torch.uint8).repeat(8, 1),
        "edge": torch.arange(8, dtype=torch.uint8)[:, None].repeat(1, 12),
    }
    centred = Augmentation(flip=0, scales=(2.0,), window="centre")
    transform = Transform(KINDS, (4, 6), **PLAIN, augmentation=centred)
    for index in range(20):
        out = transform(sample, sample_generator(0, 0, index))
        assert out["semseg"].tolist() == [[3, 4, 5, 6, 7, 8]] * 4
        assert out["edge"][:, 0].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (1, 4)}, "image size"),
        ({"image_size": (4,)}, "image size"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (1, 1, 0)}, "std"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Transform(KINDS, **{"image_size": (4, 4), **PLAIN, **arguments})
