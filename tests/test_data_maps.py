"""A transformed scene is the scene of the transformed labels; the torchvision way equals the one by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from branchtune.data.augmentation import Augmentation
from branchtune.data.maps import as_map
from branchtune.data.sampling import sample_generator
from branchtune.data.transforms import Transform, flip_horizontal, resized_crop, turned_and_scaled
from branchtune.errors import UserError
from scene_geometry import KINDS, plane, scene, surface_normals

tilt = st.floats(-0.6, 0.6)


@given(tilt, tilt)
def test_the_normals_of_a_flipped_plane_are_those_of_its_flipped_depth(x: float, y: float):
    flipped = flip_horizontal(plane(x, y, -1), KINDS)
    torch.testing.assert_close(flipped["normals"], surface_normals(flipped["depth"]), atol=2e-3, rtol=0)


INTERPOLATIONS: Any = ["linear", "cubic"]


@given(tilt, tilt, st.floats(-180, 180), st.sampled_from(INTERPOLATIONS))
def test_the_normals_of_a_turned_plane_are_those_of_its_turned_geometry(
    x: float, y: float, degrees: float, interpolation: Any
):
    turned = turned_and_scaled(plane(x, y, -1), KINDS, degrees, 1.0, interpolation=interpolation)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    expected = plane(x * c + y * s, y * c - x * s, -1)
    known = ~turned["depth"].isnan()
    assert known.float().mean() > 0.6
    torch.testing.assert_close(turned["normals"][:, known], expected["normals"][:, known], atol=1e-5, rtol=0)
    # nearest pixels: as far off as half a pixel of a plane tilted this much
    torch.testing.assert_close(turned["depth"][known], expected["depth"][known], atol=0, rtol=0.1)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_rendered_scene_turned_by_quarters_is_exact(quarter: int, interpolation: Any):
    before = scene()
    turned = turned_and_scaled(before, KINDS, 90.0 * quarter, 1.0, interpolation=interpolation)
    for key in ("semseg", "parts", "saliency", "depth"):
        assert torch.equal(turned[key], torch.rot90(before[key], quarter, (-2, -1)).to(turned[key].dtype)), key
    x, y, z = torch.rot90(before["normals"], quarter, (-2, -1))
    for _ in range(quarter):
        x, y = y, -x
    # The cubic kernel reads between pixels by what single precision is off.
    atol = 1e-6 if interpolation == "linear" else 1e-4
    torch.testing.assert_close(turned["normals"], torch.stack([x, y, z]), atol=atol, rtol=0)
    torch.testing.assert_close(turned["image"], torch.rot90(before["image"], quarter, (-2, -1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1.25, 2.0])
@pytest.mark.parametrize("by", ["window", "scale"])
def test_a_zoomed_scene_is_nearer_by_the_factor(scale: float, by: str):
    before = scene(40, 40)
    if by == "window":
        inside = round(40 / scale)
        zoomed = resized_crop(before, KINDS, ((40 - inside) // 2,) * 2 + (inside,) * 2, (40, 40), scale)
    else:
        zoomed = turned_and_scaled(before, KINDS, 0.0, scale)
    index = ((torch.arange(40) + 0.5 - 20) / scale + 20).floor().long()
    for key in ("semseg", "saliency"):
        assert torch.equal(zoomed[key], before[key][index][:, index].to(zoomed[key].dtype)), key
    torch.testing.assert_close(zoomed["depth"], before["depth"][index][:, index] / scale)
    assert torch.equal(zoomed["normals"], before["normals"][:, index][:, :, index])


@given(
    st.floats(-180, 180),
    st.floats(0.5, 2.0),
    st.sampled_from(["ignore", "zero"]),
    st.sampled_from(INTERPOLATIONS),
)
def test_what_a_rotation_leaves_empty_is_ignored_or_zero(degrees: float, scale: float, fill: Any, interpolation: Any):
    before = scene(24, 32)
    before["parts"] = torch.full((24, 32), 255)
    turned = turned_and_scaled(before, KINDS, degrees, scale, fill, interpolation)
    empty = turned["depth"].isnan()
    assert torch.equal(turned["normals"].isnan(), empty.expand(3, -1, -1))
    assert (turned["parts"] == 255).all()
    if fill == "ignore":
        assert torch.equal(turned["semseg"] == 255, empty)
        assert torch.equal(turned["saliency"].isnan(), empty)
    else:
        assert not turned["semseg"][empty].any()
        assert not turned["saliency"][empty].any()


LINES: Any = {"edge": "lines"}


def cross(height: int, width: int) -> dict[str, Tensor]:
    """One-pixel lines over the whole image: a row, a column and a diagonal."""
    edge = torch.eye(max(height, width))[:height, :width].clone()
    edge[height // 3], edge[:, width // 4] = 1, 1
    return {"image": torch.zeros(3, height, width), "edge": edge}


@given(st.integers(20, 60), st.integers(20, 60), st.integers(2, 20), st.integers(2, 20))
def test_a_shrunk_line_is_the_maximum_over_the_pixels_it_covers(height: int, width: int, h: int, w: int):
    sample = cross(height, width)
    found = resized_crop(sample, LINES, (0, 0, height, width), (h, w))["edge"]
    naive = torch.zeros(h, w)
    for y, x in sample["edge"].nonzero().tolist():
        naive[y * h // height, x * w // width] = 1
    assert torch.equal(found, naive)
    assert len(found) == h
    assert found.amax(0).all()  # the row and the column have no gap
    assert found.amax(1).all()


def test_only_a_cell_that_is_ignored_as_a_whole_is_ignored():
    edge = torch.full((4, 4), torch.nan)
    edge[0, 0], edge[0, 2] = 0, 1
    found = resized_crop({"image": torch.zeros(3, 4, 4), "edge": edge}, LINES, (0, 0, 4, 4), (2, 2))["edge"]
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [torch.nan, torch.nan]]), equal_nan=True)


@pytest.mark.parametrize(("size", "interpolation"), [((60, 90), "linear"), ((15, 20), "cubic")])
def test_lines_that_grow_or_follow_the_published_recipe_take_the_nearest_pixel(size: Any, interpolation: Any):
    sample, window = cross(30, 40), (2, 3, 20, 30)
    found = resized_crop(sample, LINES, window, size, interpolation=interpolation)["edge"]
    nearest = resized_crop(sample, {"edge": "values"}, window, size, interpolation=interpolation)["edge"]
    assert torch.equal(found, nearest)


def by_hand(sample: dict[str, Any], window: Any, size: Any, scale: float, flip: bool) -> dict[str, Any]:
    """The naive twin: each kind of map in plain tensor operations."""
    out = {"image": F.resized_crop(sample["image"], *window, size=list(size), antialias=True)}
    for name, kind in KINDS.items():
        target = sample[name] if kind == "normals" else sample[name][None]
        target = F.resized_crop(target, *window, size=list(size), interpolation=InterpolationMode.NEAREST_EXACT)
        target = target / scale if kind == "depth" and scale != 1 else target
        out[name] = target if kind == "normals" else target[0]
    if flip:
        out = {key: value.flip(-1) for key, value in out.items()}
        out["normals"] = out["normals"] * torch.tensor([-1.0, 1, 1])[:, None, None]
    return out


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1.0, 1.2, 1.5]), st.booleans())
def test_tv_tensors_equal_plain_tensor_operations(top: int, left: int, scale: float, flip: bool):
    sample, window = scene(), (top, left, 21, 25)
    out = resized_crop(sample, KINDS, window, (30, 34), scale)
    out = flip_horizontal(out, KINDS) if flip else out
    for key, value in by_hand(sample, window, (30, 34), scale, flip).items():
        assert torch.equal(out[key], value), key
        assert type(out[key]) is Tensor


def test_transforms_of_torchvision_treat_the_maps_right():
    before = scene()
    maps = {name: as_map(before[name], kind) for name, kind in KINDS.items()}
    flipped = v2.RandomHorizontalFlip(p=1.0)(maps)
    expected = flip_horizontal(before, KINDS)
    resized = v2.Resize((20, 20), antialias=True)(maps)
    for name in KINDS:
        assert torch.equal(flipped[name].as_subclass(Tensor), expected[name])
        assert set(resized[name].unique().tolist()) <= set(maps[name].unique().tolist())
    turned = v2.RandomRotation((30, 30))(maps)
    torch.testing.assert_close(turned["normals"].norm(dim=0)[24, 24], torch.tensor(1.0))


def test_cubic_normals_are_smooth_unit_vectors_and_never_leave_their_region():
    sample = plane(0.3, 0.2, -1)
    sample["normals"][:, :10] = torch.nan
    out = resized_crop(sample, {"normals": "normals"}, (0, 0, 40, 40), (56, 56), interpolation="cubic")
    known = ~out["normals"].isnan().any(0)
    assert torch.equal(known[:, 0], torch.arange(56) >= 14)
    torch.testing.assert_close(out["normals"][:, known].norm(dim=0), torch.ones(int(known.sum())))
    torch.testing.assert_close(out["normals"][:, 50, 50], sample["normals"][:, 35, 35])


def test_cubic_images_are_those_of_the_published_resizing():
    image = torch.randint(256, (3, 9, 12), dtype=torch.uint8)
    out = resized_crop({"image": image}, {}, (0, 0, 9, 12), (18, 24), interpolation="cubic")["image"]
    expected = torch.nn.functional.interpolate(image[None].float(), (18, 24), mode="bicubic", align_corners=False)[0]
    assert torch.equal(out, expected.round().clamp(0, 255).to(torch.uint8))


def test_the_published_pascal_recipe_keeps_targets_valid():
    recipe = Augmentation(scales=(1.0,), rotation=20, scale_range=(0.75, 1.25), fill="zero")
    transform = Transform(KINDS, (32, 40), (0, 0, 0), (1, 1, 1), recipe, "cubic")
    for index in range(20):
        out = transform(scene(24, 30), sample_generator(0, 0, index))
        known = ~out["normals"].isnan().any(0)
        torch.testing.assert_close(out["normals"].norm(dim=0)[known], torch.ones(int(known.sum())))
        assert set(out["semseg"].unique().tolist()) <= {*range(16), 255}
        assert out["semseg"].dtype == torch.int64


def test_a_transform_turns_with_its_own_interpolation():
    turns = Augmentation(flip=0, scales=(1.0,), rotation=20)
    linear, cubic = (
        Transform(KINDS, (24, 30), (0, 0, 0), (1, 1, 1), turns, kind)(scene(24, 30), sample_generator(0, 0, 0))
        for kind in INTERPOLATIONS
    )
    for key in ("image", "normals"):  # at its own size, so that nothing else is resampled
        assert (linear[key] - cubic[key]).nan_to_num().abs().max() > 1e-2
    assert torch.equal(linear["semseg"], cubic["semseg"])


@pytest.mark.parametrize(
    "bad", [{"rotation": -1}, {"rotation": 200}, {"scale_range": (1.2, 0.8)}, {"scale_range": (0.01, 1.0)}]
)
def test_impossible_augmentations_are_refused(bad: dict[str, Any]):
    with pytest.raises(UserError, match=next(iter(bad))):
        Augmentation(**bad)
