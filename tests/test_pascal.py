"""Every rule of the PASCAL_MT layout, one by one, on a tree written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from branchtune.data.augmentation import Augmentation
from branchtune.data.collate import Collate
from branchtune.data.pascal import PASCAL
from branchtune.data.pascal_classes import NORMALS_CLASSES, PART_OF, PARTS
from branchtune.errors import UserError
from pascal_tree import (
    HEIGHT,
    HORSE,
    PERSON,
    SKY,
    SPLITS,
    WALL,
    WIDTH,
    pascal_tasks,
    save_context,
    save_normals,
    save_palette,
    save_parts,
    write_ids,
    write_pascal_tree,
)

UNCHANGED = {"image_size": (HEIGHT, WIDTH), "mean": (0, 0, 0), "std": (1, 1, 1)}
ID, EVEN = SPLITS["train"][:2]
SHAPE = (HEIGHT, WIDTH)
UPPER = (slice(0, 6), slice(0, 8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pascal_tree(tmp_path / "pascal")


def load(root: Path, split: str = "train", **changes: Any) -> PASCAL:
    return PASCAL(root, split, **{"tasks": pascal_tasks(), **UNCHANGED, **changes})


def only(name: str) -> list[Any]:
    return [task for task in pascal_tasks() if task.name == name]


def region(*place: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[place] = True
    return mask


def parts_of(root: Path, *things: Any) -> torch.Tensor | None:
    save_parts(root / "human_parts" / f"{ID}.mat", ID, things)
    return load(root, tasks=only("human_parts"))[0].get("human_parts")


def test_splits_are_the_lists_of_context(root: Path):
    assert load(root, "train").ids == SPLITS["train"]
    assert load(root, "val").ids == SPLITS["val"]
    with pytest.raises(UserError, match=r"unknown split 'trainval': did you mean 'train'\?"):
        load(root, "trainval")


def test_images_are_rgb_from_jpegimages(root: Path):
    pixels = np.asarray(Image.open(root / "JPEGImages" / f"{ID}.jpg"))
    expected = torch.from_numpy(pixels / 255).permute(2, 0, 1).float()
    torch.testing.assert_close(load(root)[0]["image"], expected)


def test_every_batch_passes_every_check(root: Path):
    dataset = load(root)
    batch = Collate(pascal_tasks())([dataset[index] for index in range(len(dataset))])
    labelled = {task.name: task.labelled(batch[task.name]).tolist() for task in pascal_tasks()}
    assert labelled.pop("human_parts") == [False, True, False, True]
    assert all(all(found) for found in labelled.values())


def test_semseg_holds_palette_indices_with_255_ignored(root: Path):
    values = np.arange(HEIGHT * WIDTH).reshape(SHAPE) % 21
    values[3, 4] = 255
    save_palette(root / "semseg" / "VOC12" / f"{ID}.png", values)
    assert torch.equal(load(root)[0]["semseg"], torch.from_numpy(values))


def test_semseg_of_voc12_goes_before_the_one_of_context(root: Path):
    for folder, value in (("VOC12", 4), ("pascal-context", 9)):
        save_palette(root / "semseg" / folder / f"{ID}.png", np.full(SHAPE, value))
    assert (load(root)[0]["semseg"] == 4).all()
    (root / "semseg" / "VOC12" / f"{ID}.png").unlink()
    assert (load(root)[0]["semseg"] == 9).all()


def test_the_24_parts_of_a_person_are_six_groups():
    assert len(PART_OF) == 24
    assert PARTS == ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
    groups = [sorted(name for name, group in PART_OF.items() if group == index) for index in range(1, 7)]
    assert groups == [
        ["hair", "head", "lear", "lebrow", "leye", "mouth", "nose", "rear", "rebrow", "reye"],
        ["neck", "torso"],
        ["luarm", "ruarm"],
        ["lhand", "llarm", "rhand", "rlarm"],
        ["luleg", "ruleg"],
        ["lfoot", "llleg", "rfoot", "rlleg"],
    ]


@pytest.mark.parametrize("name", PART_OF)
def test_a_part_fills_its_mask_with_its_group_and_the_rest_is_background(root: Path, name: str):
    mask = region(*UPPER)
    parts = parts_of(root, (PERSON, np.ones(SHAPE, bool), [(name, mask)]))
    assert parts is not None
    assert torch.equal(parts, torch.from_numpy(np.where(mask, PART_OF[name], 0)))


def test_parts_of_all_persons_are_one_map_and_later_ones_lie_on_top(root: Path):
    left, right, low = region(slice(0, 6), slice(0, 8)), region(slice(0, 6), slice(6, 16)), region(slice(8, 10))
    parts = parts_of(root, (PERSON, left, [("torso", left)]), (PERSON, right, [("head", right), ("lfoot", low)]))
    expected = np.zeros(SHAPE, int)
    expected[left], expected[right], expected[low] = 2, 1, 6
    assert torch.equal(parts, torch.from_numpy(expected))


def test_parts_of_animals_are_background(root: Path):
    animal, hand = region(*UPPER), region(slice(8, 10))
    parts = parts_of(root, (HORSE, animal, [("head", animal)]), (PERSON, hand, [("lhand", hand)]))
    assert torch.equal(parts, torch.from_numpy(np.where(hand, 4, 0)))


@pytest.mark.parametrize(
    "things",
    [
        [],
        [(HORSE, np.ones(SHAPE, bool), [("head", np.ones(SHAPE, bool))])],
        [(PERSON, np.ones(SHAPE, bool), [])],
        [(PERSON, np.ones(SHAPE, bool), [("head", np.zeros(SHAPE, bool))])],
    ],
    ids=["nothing", "a horse", "a person without parts", "parts without pixels"],
)
def test_an_image_without_human_parts_is_ignored_as_a_whole(root: Path, things: Any):
    assert parts_of(root, *things) is None
    dataset = load(root)
    assert (Collate(pascal_tasks())([dataset[0]])["human_parts"] == 255).all()


def test_the_cache_of_the_published_loader_is_neither_needed_nor_believed(root: Path):
    before = load(root)[1]["human_parts"]
    folder = root / "ImageSets" / "Parts"
    assert not folder.exists()
    folder.mkdir()
    (folder / "train.txt").write_text(json.dumps({id_: [-1] for id_ in SPLITS["train"]}))
    assert torch.equal(load(root)[1]["human_parts"], before)


def test_an_image_whose_parts_were_moved_out_of_sight_is_ignored(root: Path):
    corner = region(slice(0, 1), slice(0, 1))
    save_parts(root / "human_parts" / f"{ID}.mat", ID, [(PERSON, corner, [("head", corner)])])
    zoom = Augmentation(flip=0, scales=(2.0,), window="centre")
    assert "human_parts" in load(root)[0]
    assert "human_parts" not in load(root, augmentation=zoom)[0]


def normals_of(root: Path, vector: Any, context: np.ndarray) -> torch.Tensor:
    save_normals(root / "normals_distill" / f"{ID}.png", np.broadcast_to(np.asarray(vector, float), (*SHAPE, 3)))
    save_context(root / "pascal-context" / "trainval" / f"{ID}.mat", context)
    return load(root, tasks=only("normals"))[0]["normals"]


def test_normals_are_decoded_from_colours_and_have_unit_length(root: Path):
    colours = np.array([200, 90, 13], np.uint8)
    Image.fromarray(np.broadcast_to(colours, (*SHAPE, 3)).copy()).save(root / "normals_distill" / f"{ID}.png")
    save_context(root / "pascal-context" / "trainval" / f"{ID}.mat", np.full(SHAPE, WALL))
    vector = 2.0 * colours / 255 - 1
    expected = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)[:, None, None].expand(3, *SHAPE)
    torch.testing.assert_close(load(root)[0]["normals"], expected)


def test_normals_are_kept_only_on_classes_that_nyu_has(root: Path):
    context = np.full(SHAPE, SKY)
    context[UPPER] = WALL
    normals = normals_of(root, (0, 0.6, -0.8), context)
    assert torch.equal(~normals.isnan(), torch.from_numpy(region(*UPPER)).expand(3, *SHAPE))


@pytest.mark.parametrize("name", ["wall", "floor", "ceiling", "tvmonitor", "person", "window", "wallet"])
def test_these_classes_have_normals(root: Path, name: str):
    assert not normals_of(root, (0, 0, -1), np.full(SHAPE, NORMALS_CLASSES[name])).isnan().any()


@pytest.mark.parametrize(
    ("name", "value"), [("sky", 360), ("grass", 187), ("unknown", 431), ("aeroplane", 2), ("none", 0), ("tree", 420)]
)
def test_these_classes_have_none(root: Path, name: str, value: int):
    assert name not in NORMALS_CLASSES
    assert normals_of(root, (0, 0, -1), np.full(SHAPE, value)).isnan().all()


def test_the_classes_with_normals_are_indices_of_pascal_context():
    values = list(NORMALS_CLASSES.values())
    assert values == sorted(set(values))
    assert list(NORMALS_CLASSES) == sorted(NORMALS_CLASSES)
    assert min(values) >= 1
    assert max(values) <= 459


@pytest.mark.parametrize(("value", "salient"), [(0, 0), (127, 0), (128, 1), (255, 1)])
def test_saliency_is_what_is_above_one_half(root: Path, value: int, salient: int):
    Image.fromarray(np.full(SHAPE, value, np.uint8)).save(root / "sal_distill" / f"{ID}.png")
    assert (load(root)[0]["sal"] == salient).all()


def edges_of(root: Path, context: np.ndarray) -> np.ndarray:
    save_context(root / "pascal-context" / "trainval" / f"{ID}.mat", context)
    return load(root, tasks=only("edge"))[0]["edge"].numpy()


def test_a_map_of_one_class_has_no_edges(root: Path):
    assert not edges_of(root, np.full(SHAPE, WALL)).any()


def test_a_border_between_two_classes_is_a_line_of_one_pixel(root: Path):
    context = np.full(SHAPE, WALL)
    context[:, 8:] = SKY
    edges = edges_of(root, context)
    columns = np.flatnonzero(edges.any(0))
    assert len(columns) == 1
    assert columns[0] in (7, 8)
    assert edges[1:-1, columns[0]].all()


def test_edges_go_around_a_region_and_close(root: Path):
    context = np.full(SHAPE, WALL)
    context[4:8, 5:11] = SKY
    edges = edges_of(root, context)
    assert 12 <= edges.sum() <= 20
    assert not edges[5:7, 6:10].all()
    assert not edges[[0, -1]].any()
    assert not edges[:, [0, -1]].any()


def test_edges_are_where_the_classes_differ_whatever_their_numbers(root: Path):
    context = np.full(SHAPE, 459)
    context[:, 8:] = 1
    assert edges_of(root, context).any()


def test_only_the_files_of_the_tasks_are_needed(root: Path):
    for folder in (
        "semseg/VOC12",
        "semseg/pascal-context",
        "human_parts",
        "normals_distill",
        "pascal-context/trainval",
    ):
        for file in (root / folder).iterdir():
            file.unlink()
    assert set(load(root, tasks=only("sal"))[0]) == {"id", "image", "sal"}


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("semseg", f"semseg/VOC12/{EVEN}.png"),
        ("human_parts", f"human_parts/{EVEN}.mat"),
        ("normals", f"normals_distill/{EVEN}.png"),
        ("normals", f"pascal-context/trainval/{EVEN}.mat"),
        ("edge", f"pascal-context/trainval/{EVEN}.mat"),
        ("sal", f"sal_distill/{EVEN}.png"),
        ("sal", f"JPEGImages/{EVEN}.jpg"),
    ],
)
def test_a_missing_file_is_named_when_the_set_is_opened(root: Path, task: str, file: str):
    (root / file).unlink()
    with pytest.raises(UserError, match=f"1 file of split 'train' is missing \\({file}"):
        load(root, tasks=only(task))


def test_a_missing_file_of_two_labels_is_one_file(root: Path):
    (root / "pascal-context" / "trainval" / f"{EVEN}.mat").unlink()
    with pytest.raises(UserError, match="1 file of split 'train' is missing"):
        load(root)


def save_png(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array).save(path)


def save_mat(**content: Any) -> Callable[[Path], None]:
    return lambda path: savemat(path, content)


BAD_FILES: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "class out of range": ("semseg", "semseg/VOC12/{}.png", save_png(np.full(SHAPE, 21, np.uint8)), "value 21"),
    "classes in colour": ("semseg", "semseg/VOC12/{}.png", save_png(np.zeros((*SHAPE, 3), np.uint8)), "mode is RGB"),
    "classes of another size": (
        "semseg",
        "semseg/VOC12/{}.png",
        save_png(np.ones((5, 6), np.uint8)),
        r"\[5, 6\] differs",
    ),
    "parts that are text": ("human_parts", "human_parts/{}.mat", lambda p: p.write_text("no"), "cannot be decoded"),
    "parts of another name": ("human_parts", "human_parts/{}.mat", save_mat(other=1), "no variable 'anno'"),
    "parts that are a number": ("human_parts", "human_parts/{}.mat", save_mat(anno=1.0), "no annotation"),
    "an unknown part": (
        "human_parts",
        "human_parts/{}.mat",
        lambda p: save_parts(p, "x", [(PERSON, region(*UPPER), [("wing", region(*UPPER))])]),
        "unknown part 'wing'",
    ),
    "parts of another size": (
        "human_parts",
        "human_parts/{}.mat",
        lambda p: save_parts(p, "x", [(PERSON, np.ones((5, 6)), [("head", np.ones((5, 6)))])]),
        r"\[5, 6\] differs",
    ),
    "normals in grey": ("normals", "normals_distill/{}.png", save_png(np.zeros(SHAPE, np.uint8)), "mode is L"),
    "classes for normals of another size": (
        "normals",
        "pascal-context/trainval/{}.mat",
        lambda p: save_context(p, np.ones((5, 6))),
        r"\[5, 6\] differs",
    ),
    "a label map with channels": (
        "edge",
        "pascal-context/trainval/{}.mat",
        save_mat(LabelMap=np.ones((2, 3, 4))),
        "[2, 3, 4]",
    ),
    "a label map with NaN": (
        "edge",
        "pascal-context/trainval/{}.mat",
        save_mat(LabelMap=np.full(SHAPE, np.nan)),
        "LabelMap holds nan, expected whole numbers",
    ),
    "a label map cut short": ("edge", "pascal-context/trainval/{}.mat", lambda p: p.write_bytes(b"MATLAB"), "decoded"),
    "saliency in colour": ("sal", "sal_distill/{}.png", save_png(np.zeros((*SHAPE, 3), np.uint8)), "mode is RGB"),
    "an image that is text": ("sal", "JPEGImages/{}.jpg", lambda p: p.write_text("no"), "cannot be decoded"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_the_reason(root: Path, case: str):
    task, name, write, message = BAD_FILES[case]
    path = root / name.format(EVEN)
    path.unlink()
    write(path)
    dataset = load(root, tasks=only(task))
    with pytest.raises(UserError, match=f"{path.name}: .*{message}") as caught:
        dataset[1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["human_parts", "pascal-context/trainval"])
def test_a_matlab_file_cut_short_anywhere_loads_whole_or_is_named(root: Path, folder: str):
    path = root / folder / f"{EVEN}.mat"
    dataset = load(root, tasks=only("human_parts" if folder == "human_parts" else "edge"))
    whole, expected = path.read_bytes(), dataset[1]
    refused = []
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        try:
            assert dataset[1].keys() == expected.keys()
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(path.name in message for message in refused)


def test_a_missing_root_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere: no such folder, point the data root at an expanded PASCAL_MT"):
        load(tmp_path / "nowhere")


def test_unknown_labels_are_refused_with_the_nearest(root: Path):
    import branchtune as bt

    with pytest.raises(UserError, match=r"unknown label 'parts': did you mean 'human_parts'\?"):
        load(root, tasks=[bt.HumanParts("parts")])


def test_ids_in_two_splits_are_refused(root: Path):
    write_ids(root, "train", [*SPLITS["train"], SPLITS["val"][0]])
    with pytest.raises(UserError, match=r"1 id is in another split too \(2009_000005\)"):
        load(root, "train")
