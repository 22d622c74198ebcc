"""The renderer: determinism, ranges, and labels that agree with one another."""

from __future__ import annotations

import numpy as np
import pytest

from branchtune.data.scenes import (
    CLASSES,
    DENSE_LABELS,
    IMAGE_LABELS,
    PARTS,
    STRUCTURE,
    TEXTURES,
    render_scene,
)
from branchtune.errors import UserError

HEIGHT, WIDTH = 60, 84
PERSON = CLASSES.index("person")


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(3, index, HEIGHT, WIDTH) for index in range(16)]


def viewing_rays(scene, height=HEIGHT, width=WIDTH):
    """Camera-frame rays with unit z, from the field of view that the camera label states."""
    unit = 2 * scene["camera"][3].astype(np.float64) / max(height, width)
    x = (np.arange(width) + 0.5 - width / 2) * unit
    y = (np.arange(height) + 0.5 - height / 2) * unit
    return np.stack((*np.meshgrid(x, y), np.ones((height, width))))


def test_same_seed_and_index_give_the_same_scene():
    first, second = (render_scene(5, 17, 40, 40) for _ in range(2))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    "other",
    [(5, 17, 40, 40, "val"), (5, 17, 40, 40, "test"), (5, 18, 40, 40, "train"), (6, 17, 40, 40, "train")],
)
def test_split_index_and_seed_each_give_another_scene(other):
    assert not np.array_equal(render_scene(5, 17, 40, 40)["depth"], render_scene(*other)["depth"])


def test_shapes_types_and_ranges(scenes):
    for scene in scenes:
        assert set(scene) == {"image", *DENSE_LABELS, *IMAGE_LABELS}
        assert scene["image"].shape == (3, HEIGHT, WIDTH)
        assert scene["normals"].shape == (3, HEIGHT, WIDTH)
        for name in ("semseg", "parts", "saliency", "depth", "edge"):
            assert scene[name].shape == (HEIGHT, WIDTH)
        for name in ("semseg", "parts", "wall_texture", "floor_texture"):
            assert scene[name].dtype == np.int64
        for name in set(scene) - {"semseg", "parts", "wall_texture", "floor_texture"}:
            assert scene[name].dtype == np.float32, name
            assert np.isfinite(scene[name]).all() or name == "distance"
        assert scene["image"].min() >= 0
        assert scene["image"].max() <= 1
        assert scene["semseg"].min() >= 0
        assert scene["semseg"].max() < len(CLASSES)
        assert scene["parts"].max() in (255, *range(len(PARTS)))
        assert set(np.unique(scene["saliency"])) <= {0, 1}
        assert set(np.unique(scene["edge"])) <= {0, 1}
        assert scene["depth"].min() > 0
        assert scene["depth"].max() < 9
        assert 0 <= scene["wall_texture"] < len(TEXTURES)
        assert 0 <= scene["floor_texture"] < len(TEXTURES)


@pytest.mark.parametrize("size", [(1, 1), (7, 31), (64, 64), (50, 20)])
def test_any_size(size):
    scene = render_scene(0, 2, *size)
    assert scene["image"].shape == (3, *size)
    assert scene["depth"].shape == size


def test_scenes_have_variety(scenes):
    shown = np.stack([scene["presence"] for scene in scenes]).mean(0)
    assert (shown > 0).all(), "every class turns up"
    figures = [bool((scene["semseg"] == PERSON).any()) for scene in scenes]
    assert 0.35 < np.mean(figures) < 0.85


def test_normals_are_unit_and_face_the_camera(scenes):
    for scene in scenes:
        np.testing.assert_allclose(np.linalg.norm(scene["normals"], axis=0), 1, atol=1e-5)
        towards = (scene["normals"] * viewing_rays(scene)).sum(0)
        assert towards.max() < 1e-3
    # Off the optical axis a visible surface may still turn slightly along it.
    assert np.mean([(scene["normals"][2] < 0).mean() for scene in scenes]) > 0.9


def test_flat_regions_have_the_normal_that_their_depth_implies(scenes):
    """Cross product of back-projected neighbours = labelled normal, wherever three neighbours share one plane."""
    checked = 0
    for scene in scenes:
        points = viewing_rays(scene) * scene["depth"].astype(np.float64)
        normals = scene["normals"].astype(np.float64)
        right = points[:, :-1, 1:] - points[:, :-1, :-1]
        down = points[:, 1:, :-1] - points[:, :-1, :-1]
        found = np.cross(down, right, axis=0)
        found /= np.linalg.norm(found, axis=0)
        corner = normals[:, :-1, :-1]
        flat = np.ones(found.shape[1:], bool)
        for step, neighbour in ((right, normals[:, :-1, 1:]), (down, normals[:, 1:, :-1])):
            flat &= np.abs(neighbour - corner).max(0) < 1e-6
            flat &= np.abs((step * corner).sum(0)) < 1e-4 * scene["depth"][:-1, :-1]
        cosine = (found * corner).sum(0)[flat]
        assert cosine.min() > 0.999
        checked += cosine.size
    assert checked > 0.5 * len(scenes) * HEIGHT * WIDTH


def test_floor_and_ceiling_are_the_planes_that_the_camera_label_states(scenes):
    for scene in scenes:
        height, pitch, roll = scene["camera"][:3]
        ceiling = np.exp(scene["room"][3])
        down = np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])
        drop = np.tensordot(down, viewing_rays(scene) * scene["depth"], 1)
        floor = scene["semseg"] == CLASSES.index("floor")
        above = scene["semseg"] == CLASSES.index("ceiling")
        np.testing.assert_allclose(drop[floor], height, atol=2e-4)
        np.testing.assert_allclose(drop[above], height - ceiling, atol=2e-4)
        np.testing.assert_allclose(scene["normals"][:, floor], -down[:, None] * np.ones(floor.sum()), atol=1e-5)


def test_parts_and_persons_are_the_same_pixels(scenes):
    seen = set()
    for scene in scenes:
        person = scene["semseg"] == PERSON
        if person.any():
            np.testing.assert_array_equal(scene["parts"] > 0, person)
            seen |= set(np.unique(scene["parts"]))
        else:
            assert (scene["parts"] == 255).all()
    assert seen == set(range(len(PARTS)))


def test_salient_things_are_neither_structure_nor_large_furniture(scenes):
    for scene in scenes:
        salient = {CLASSES[c] for c in np.unique(scene["semseg"][scene["saliency"] == 1])}
        assert not salient & {*STRUCTURE, "window", "door", "picture", "rug", "table", "cabinet", "bed", "sofa"}
    share = np.mean([scene["saliency"].mean() for scene in scenes])
    assert 0.01 < share < 0.4


def test_edges_lie_where_depth_or_normals_break(scenes):
    for scene in scenes:
        edge = scene["edge"] == 1
        assert 0.002 < edge.mean() < 0.35
        near_break = np.zeros_like(edge)
        for first, second in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])):
            normals, depth = scene["normals"], scene["depth"]
            turn = (normals[(slice(None), *first)] * normals[(slice(None), *second)]).sum(0) < 0.83
            jump = np.abs(depth[first] - depth[second]) > 0.01 * np.minimum(depth[first], depth[second])
            near_break[first] |= turn | jump
            near_break[second] |= turn | jump
        assert near_break[edge].all()


def test_creases_between_walls_are_edges():
    scene = render_scene(3, 4, 96, 96)
    wall = scene["semseg"] == CLASSES.index("wall")
    turned = (scene["normals"][:, :, 1:] * scene["normals"][:, :, :-1]).sum(0) < 0.5
    rows, columns = np.nonzero(wall[:, 1:] & wall[:, :-1] & turned)
    assert rows.size > 5
    assert scene["edge"][rows, columns].all()


def test_image_labels_agree_with_the_maps(scenes):
    for scene in scenes:
        area = np.bincount(scene["semseg"].reshape(-1), minlength=len(CLASSES))
        present = scene["presence"] == 1
        assert (area[present] > 0).all()
        assert not present[area < 0.002 * HEIGHT * WIDTH].any()
        np.testing.assert_array_equal(scene["counts"] > 0, present)
        np.testing.assert_array_equal(np.isfinite(scene["distance"]), present)
        for index in np.flatnonzero(present):
            mean = scene["depth"][scene["semseg"] == index].mean()
            np.testing.assert_allclose(scene["distance"][index], np.log(mean), atol=1e-3)
        things = len(CLASSES) - len(STRUCTURE)
        centres = scene["centres"].reshape(-1, 16)
        np.testing.assert_array_equal(centres[:things].max(1), scene["presence"][len(STRUCTURE) :])
        if not present[PERSON]:
            assert centres[things:].max() == 0
        np.testing.assert_allclose(np.linalg.norm(scene["light"]), 1, atol=1e-5)


def test_shadows_are_cast():
    """Hiding every solid from the light brightens part of the floor."""
    from branchtune.data.scenes import _trace

    def image(casts):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_trace, "_casts", casts)
            return render_scene(0, 13, 64, 64)["image"]

    usual = render_scene(0, 13, 64, 64)["image"]
    np.testing.assert_array_equal(image(_trace._casts), usual)
    assert np.abs(image(lambda scene, solid: False) - usual).max() > 0.1


def test_bad_arguments_name_the_way_out():
    with pytest.raises(UserError, match="unknown split 'tran': did you mean 'train'"):
        render_scene(0, 0, 8, 8, split="tran")
    with pytest.raises(UserError, match="at least 0"):
        render_scene(-1, 0, 8, 8)
    with pytest.raises(UserError, match="0x8"):
        render_scene(0, 0, 0, 8)
