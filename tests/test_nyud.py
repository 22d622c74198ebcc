from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from branchtune.data.augmentation import Augmentation
from branchtune.data.collate import Collate
from branchtune.data.nyud import NYUD
from branchtune.data.sampling import EpochSampler
from branchtune.errors import UserError
from branchtune.tasks.depth import Depth
from branchtune.tasks.saliency import Saliency
from branchtune.tasks.semseg import SemanticSegmentation
from nyud_tree import CLASSES, FOLDERS, HEIGHT, SPLITS, WIDTH, nyud_tasks, write_ids, write_nyud_tree

UNCHANGED = {"image_size": (HEIGHT, WIDTH), "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_nyud_tree(tmp_path / "nyud")


def load(root: Path, split: str = "train", **changes: Any) -> NYUD:
    return NYUD(root, split, **{"tasks": nyud_tasks(), **UNCHANGED, **changes})


def assert_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, b[key], rtol=0, atol=0, equal_nan=True)
        else:
            assert value == b[key]


def test_ids_come_in_the_order_of_the_split_file(root: Path):
    assert load(root, "train").ids == SPLITS["train"]
    assert load(root, "val").ids == SPLITS["val"]
    assert [load(root, "val")[index]["id"] for index in (0, 1, -1)] == ["0001", "0003", "0003"]


def test_a_sample_follows_the_contract_and_holds_what_the_files_hold(root: Path):
    sample = load(root)[1]
    id_ = SPLITS["train"][1]
    image = np.asarray(Image.open(root / "images" / f"{id_}.jpg"))
    classes = np.asarray(Image.open(root / "segmentation" / f"{id_}.png")).astype(int)
    torch.testing.assert_close(sample["image"], torch.from_numpy(image / 255).permute(2, 0, 1).float())
    assert torch.equal(sample["semseg"], torch.from_numpy(np.where(classes == 0, 255, classes - 1)))
    depth = np.load(root / "depth" / f"{id_}.npy")
    normals = np.load(root / "normals" / f"{id_}.npy").transpose(2, 0, 1)
    depth[0, 0], normals[:, 0, 0] = np.nan, np.nan
    torch.testing.assert_close(sample["depth"], torch.from_numpy(depth), equal_nan=True)
    torch.testing.assert_close(sample["normals"], torch.from_numpy(normals), equal_nan=True)
    assert torch.equal(sample["edge"], torch.from_numpy(np.load(root / "edge" / f"{id_}.npy")))
    for task in nyud_tasks():
        task.check_target(sample[task.name], HEIGHT, WIDTH)


def test_only_the_files_of_the_tasks_are_needed(root: Path):
    for folder in ("depth", "normals", "edge"):
        for file in (root / folder).iterdir():
            file.unlink()
    (root / "edge").rmdir()
    assert set(load(root, tasks=nyud_tasks()[:1])[0]) == {"id", "image", "semseg"}


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan])
def test_depth_that_is_unknown_is_ignored(root: Path, value: float):
    depth = np.full((HEIGHT, WIDTH), 2.0)
    depth[3, 4] = value
    np.save(root / "depth" / "0000.npy", depth)
    loaded = load(root)[0]["depth"]
    assert loaded.isnan().nonzero().tolist() == [[3, 4]]
    assert loaded[0, 0] == 2


@pytest.mark.parametrize("value", [(0, 0, 0), (np.nan, 0, -1), (np.nan,) * 3])
def test_normals_without_a_direction_are_ignored_in_all_channels(root: Path, value: Any):
    normals = np.zeros((HEIGHT, WIDTH, 3))
    normals[..., 2] = -0.5
    normals[3, 4] = value
    np.save(root / "normals" / "0000.npy", normals)
    loaded = load(root)[0]["normals"]
    assert loaded.isnan().nonzero().tolist() == [[channel, 3, 4] for channel in range(3)]
    assert loaded[:, 0, 0].tolist() == [0, 0, -1]


def test_palette_images_give_their_indices_and_grey_images_three_channels(root: Path):
    labels = Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8))
    labels.putpalette([5] * 768)
    labels.save(root / "segmentation" / "0000.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 51, np.uint8)).save(root / "images" / "0000.jpg")
    sample = load(root)[0]
    assert (sample["semseg"] == 2).all()
    torch.testing.assert_close(sample["image"], torch.full((3, HEIGHT, WIDTH), 0.2))


def test_samples_have_the_size_that_was_asked_for(root: Path):
    sample = load(root, image_size=(6, 10), augmentation=Augmentation())[0]
    assert [tuple(sample[k].shape[-2:]) for k in ("image", "semseg", "depth", "normals", "edge")] == [(6, 10)] * 5


def test_augmentation_is_a_function_of_seed_epoch_and_index(root: Path):
    augmentation = Augmentation(jitter=0.2)
    dataset = load(root, augmentation=augmentation, seed=1)
    assert_equal(dataset[(2, 1)], load(root, augmentation=augmentation, seed=1)[(2, 1)])
    assert_equal(dataset[0], dataset[(0, 0)])
    assert_equal(dataset[(3, -1)], dataset[(3, 3)])
    images = [dataset[(epoch, 0)]["image"] for epoch in range(4)]
    images.append(load(root, augmentation=augmentation, seed=2)[(0, 0)]["image"])
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_cached_samples_equal_read_ones_and_cannot_be_spoilt(root: Path):
    for augmentation in (None, Augmentation()):
        plain, cached = load(root, augmentation=augmentation), load(root, augmentation=augmentation, cache=True)
        for _ in range(2):
            for index in range(4):
                sample = cached[(1, index)]
                assert_equal(sample, plain[(1, index)])
                for key in ("image", "depth", "semseg", "normals", "edge"):
                    sample[key].zero_()


def test_the_cache_does_not_read_twice(root: Path):
    dataset = load(root, cache=True)
    before = dataset[0]
    (root / "images" / "0000.jpg").unlink()
    assert_equal(dataset[0], before)


@pytest.mark.parametrize("cache", [False, True])
def test_workers_give_the_batches_of_the_main_process(root: Path, cache: bool):
    def batches(workers: int) -> list[dict[str, Any]]:
        dataset = load(root, augmentation=Augmentation(jitter=0.1), cache=cache)
        sampler = EpochSampler(len(dataset), 3, seed=5)
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=Collate(nyud_tasks()),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        found = []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found

    for a, b in zip(batches(0), batches(2), strict=True):
        assert_equal(a, b)


def test_unknown_names_are_refused_with_the_nearest(root: Path):
    with pytest.raises(UserError, match=r"unknown split 'training': did you mean 'train'\?"):
        load(root, "training")
    with pytest.raises(UserError, match=r"unknown label 'normal': did you mean 'normals'\?"):
        load(root, tasks=[Saliency("normal")])
    with pytest.raises(UserError, match="task 'depth' wants 'classes' targets"):
        load(root, tasks=[SemanticSegmentation("depth", num_classes=3)])


def test_a_missing_root_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


def test_a_missing_split_file_is_named(root: Path):
    (root / "gt_sets" / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt: cannot be read \(No such file or directory\)"):
        load(root, "val")


def test_a_list_that_is_no_text_is_named(root: Path):
    (root / "gt_sets" / "val.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(UserError, match=r"val\.txt: cannot be read \(no UTF-8 text\)"):
        load(root, "val")


def test_an_empty_split_is_refused(root: Path):
    (root / "gt_sets" / "val.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"val\.txt: the split is empty"):
        load(root, "val")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_a_list_has_one_id_per_line_whatever_wrote_it(root: Path, start: bytes, end: bytes):
    for folder, suffix in FOLDERS.items():
        (root / folder / f"0001{suffix}").rename(root / folder / f"kitchen 1{suffix}")
    (root / "gt_sets" / "val.txt").write_bytes(start + end.join([b"kitchen 1", b"", b" 0003 "]))
    assert load(root, "val").ids == ["kitchen 1", "0003"]
    assert load(root, "val")[0]["id"] == "kitchen 1"


def test_ids_listed_twice_are_refused(root: Path):
    write_ids(root, "val", ["0001", "0003", "0001"])
    with pytest.raises(UserError, match=r"1 id is listed twice \(0001\)"):
        load(root, "val")


def test_missing_files_are_counted_and_the_first_five_named(root: Path):
    write_ids(root, "val", ["0001", "a", "b"])
    (root / "edge" / "0001.npy").unlink()
    with pytest.raises(UserError) as caught:
        load(root, "val")
    assert "11 files of split 'val' are missing" in str(caught.value)
    named = "(images/a.jpg, images/b.jpg, segmentation/a.png, segmentation/b.png, depth/a.npy, ...)"
    assert named in str(caught.value)


def save_png(array: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array, **options).save(path)


def save_npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


SHAPE = (HEIGHT, WIDTH)
BAD_FILES = {
    "image that is text": ("images/0000.jpg", lambda p: p.write_text("no image"), "cannot be decoded"),
    "image that is empty": ("images/0000.jpg", lambda p: p.write_bytes(b""), "cannot be decoded"),
    "class above num_classes": (
        "segmentation/0000.png",
        save_png(np.full(SHAPE, CLASSES + 1, np.uint8)),
        "value 40 is above the task's 39 classes",
    ),
    "classes in colour": ("segmentation/0000.png", save_png(np.zeros((*SHAPE, 3), np.uint8)), "mode is RGB"),
    "classes in 16 bits": ("segmentation/0000.png", save_png(np.zeros(SHAPE, np.uint16)), "mode is I;16"),
    "classes of another size": (
        "segmentation/0000.png",
        save_png(np.ones((5, 6), np.uint8)),
        r"size \[5, 6\] differs from the image's \[12, 16\]",
    ),
    "depth of integers": ("depth/0000.npy", save_npy(np.ones(SHAPE, np.int32)), "int32 .* expected floats"),
    "depth that is negative": ("depth/0000.npy", save_npy(np.full(SHAPE, -1.0)), "value -1, expected metres above 0"),
    "depth without an end": ("depth/0000.npy", save_npy(np.full(SHAPE, np.inf)), "value inf, expected metres"),
    "depth that is minus infinite": ("depth/0000.npy", save_npy(np.full(SHAPE, -np.inf)), "value -inf"),
    "depth with a channel": ("depth/0000.npy", save_npy(np.ones((*SHAPE, 1))), r"\[12, 16, 1\], expected"),
    "depth of another size": ("depth/0000.npy", save_npy(np.ones((5, 6))), r"size \[5, 6\] differs"),
    "depth that is no array": ("depth/0000.npy", lambda p: p.write_text("no array"), "cannot be decoded"),
    "depth that is a pickle": ("depth/0000.npy", save_npy(np.array([{}])), "cannot be decoded .*Object arrays"),
    "depth that is a folder": ("depth/0000.npy", Path.mkdir, "cannot be decoded"),
    "depth that vanished": ("depth/0000.npy", lambda p: None, "no such file"),
    "normals of two channels": ("normals/0000.npy", save_npy(np.ones((*SHAPE, 2))), r"\[12, 16, 2\], expected"),
    "normals of 8 bits": ("normals/0000.npy", save_npy(np.ones((*SHAPE, 3), np.uint8)), "uint8"),
    "normals out of range": ("normals/0000.npy", save_npy(np.full((*SHAPE, 3), 1.5)), "value 1.5"),
    "normals that are infinite": ("normals/0000.npy", save_npy(np.full((*SHAPE, 3), -np.inf)), "value -inf"),
    "edges of another value": ("edge/0000.npy", save_npy(np.full(SHAPE, 0.5)), "value 0.5"),
    "edges that are NaN": ("edge/0000.npy", save_npy(np.full(SHAPE, np.nan)), "value nan"),
    "edges of records": ("edge/0000.npy", save_npy(np.zeros(SHAPE, [("a", "f4")])), "expected .H, W. of 0 and 1"),
    "edges of complex numbers": ("edge/0000.npy", save_npy(np.ones(SHAPE, complex)), "complex128"),
    "edges with a channel": ("edge/0000.npy", save_npy(np.ones((*SHAPE, 1))), r"\[12, 16, 1\], expected"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_its_value(root: Path, case: str):
    name, write, message = BAD_FILES[case]
    dataset = load(root)
    (root / name).unlink()
    write(root / name)
    with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
        dataset[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["images/0000.jpg", "segmentation/0000.png", "depth/0000.npy", "edge/0000.npy"])
def test_a_file_cut_short_anywhere_loads_whole_or_is_named(root: Path, name: str):
    dataset = load(root)
    whole = (root / name).read_bytes()
    expected = dataset[0]
    refused = []
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        (root / name).write_bytes(whole[:length])
        try:
            assert_equal(dataset[0], expected)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(name in message for message in refused)


def test_a_set_of_one_sample_is_a_set(root: Path):
    write_ids(root, "val", ["0003"])
    dataset = load(root, "val", tasks=[Depth("depth")])
    assert len(dataset) == 1
    with pytest.raises(IndexError):
        dataset[1]
