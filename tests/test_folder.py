"""The folder layout: `dataset.yaml`, units, ignored values, partial labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import branchtune as bt
from branchtune.data.check import check_source
from branchtune.data.folder import FolderFiles
from branchtune.data.source import refuse
from branchtune.data.stored import StoredSamples
from branchtune.errors import UserError
from folder_tree import HEIGHT, SPLITS, WIDTH, folder_tasks, write_folder_tree

SHAPE = (HEIGHT, WIDTH)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder_tree(tmp_path / "own")


def first(root: Path) -> dict[str, Any]:
    return FolderFiles(root).read("a")


def declare(root: Path, tasks: str) -> None:
    (root / "dataset.yaml").write_text("tasks:\n" + "".join(f"  {line}\n" for line in tasks.splitlines()))


def test_samples_follow_the_contract(root: Path):
    source = FolderFiles.for_tasks(root, folder_tasks())
    dataset = StoredSamples(source, "train", folder_tasks(), (8, 10), mean=(0, 0, 0), std=(1, 1, 1))
    assert dataset.ids == SPLITS["train"]
    for task in folder_tasks():
        task.check_target(dataset[0][task.name], 8, 10)


def test_stored_values_become_classes_metres_and_unit_normals(root: Path):
    sample = first(root)
    classes = np.array(Image.open(root / "semseg" / "a.png"))
    millimetres = np.asarray(Image.open(root / "depth" / "a.png")).astype(float)
    assert torch.equal(sample["semseg"], torch.from_numpy(classes))
    expected = torch.from_numpy(np.where(millimetres == 0, np.nan, millimetres / 1000)).float()
    torch.testing.assert_close(sample["depth"], expected, equal_nan=True)
    torch.testing.assert_close(sample["normals"].norm(dim=0), torch.ones(SHAPE))
    assert sample["height"].max() <= 5


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif"])
def test_images_of_any_format_are_found(root: Path, suffix: str):
    image = Image.open(root / "images" / "a.png")
    (root / "images" / "a.png").unlink()
    image.save(root / "images" / f"a{suffix}")
    assert FolderFiles(root).missing(["a"]) == []
    assert first(root)["image"].shape == (3, *SHAPE)


def test_a_partial_label_may_be_missing_and_others_may_not(root: Path):
    source = FolderFiles(root)
    assert "height" not in source.read("b")
    assert source.missing(["a", "b"]) == []
    (root / "depth" / "b.png").unlink()
    assert [id_ for id_, _ in source.missing(["a", "b"])] == ["b"]


@pytest.mark.parametrize(
    ("copy", "names"),
    [("images/a.jpg", "images/a.jpg and images/a.png"), ("height/a.png", "height/a.png and height/a.npy")],
)
def test_two_files_of_one_id_are_named_and_refused(root: Path, copy: str, names: str):
    """One of them would be read, and nobody would know which."""
    (root / copy).write_bytes(b"")
    source = FolderFiles(root)
    assert source.missing(["a", "b"]) == []
    found = [problem for problem in source.describe_split("train") if problem.kind == "several files"]
    assert [(problem.id, problem.text) for problem in found] == [("a", f"{root}: {names} are of one id, keep one")]
    with pytest.raises(UserError, match=f"1 id is stored more than once in split 'train': {names}"):
        refuse(source, "train", found)
    source.keep_labels(["semseg"])
    assert bool(source.ambiguous(["a"])) == copy.startswith("images")


def test_normals_of_8_bits_are_colours_and_axes_can_be_flipped(root: Path):
    declare(root, "normals: {kind: normals, flip: [y, z]}")
    (root / "normals" / "a.npy").unlink()
    Image.fromarray(np.full((*SHAPE, 3), (128, 128, 255), np.uint8)).save(root / "normals" / "a.png")
    normal = first(root)["normals"][:, 0, 0]
    assert normal[2] == pytest.approx(-1, abs=1e-3)
    assert normal[0] > 0 > normal[1]


def test_ignored_values_may_be_negative_and_classes_of_any_integer_type(root: Path):
    declare(root, "semseg: {kind: classes, num_classes: 13, ignore: -1}")
    (root / "semseg" / "a.png").unlink()
    np.save(root / "semseg" / "a.npy", np.where(np.eye(*SHAPE) == 1, -1, 12).astype(np.int64))
    assert torch.equal(first(root)["semseg"] == 255, torch.from_numpy(np.eye(*SHAPE) == 1))


@pytest.mark.parametrize("mark", ["0.1", "-3.4028235e+38", "-9999.9"])  # none of them is a float32
@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4"])
def test_ignored_values_are_those_that_the_file_can_hold(root: Path, mark: str, kind: Any):
    declare(root, f"height: {{kind: values, ignore: {mark}}}")
    stored = np.full(SHAPE, 2.0).astype(kind)
    stored[3, 4] = float(mark)
    np.save(root / "height" / "a.npy", stored)
    assert first(root)["height"].isnan().nonzero().tolist() == [[3, 4]]


def test_values_are_scaled_before_their_range_is_checked(root: Path):
    declare(root, "semseg: {kind: values, scale: 0.5, range: [0, 1], ignore: 255}")
    sample = first(root)
    assert sample["semseg"].nan_to_num(9).unique().tolist() == [0, 0.5, 1, 9]


def test_splits_and_folders_have_other_names_where_the_file_says_so(root: Path):
    (root / "lists").mkdir()
    (root / "train.txt").rename(root / "lists" / "fit.txt")
    (root / "images").rename(root / "rgb")
    (root / "depth").rename(root / "z")
    text = "images: rgb\nsplits: {train: lists/fit.txt, val: val.txt, test: val.txt}\n"
    (root / "dataset.yaml").write_text(text + "tasks:\n  depth: {kind: depth, units: mm, folder: z}\n")
    source = FolderFiles(root)
    assert source.listed("train") == SPLITS["train"]
    assert source.has_split("test")
    assert FolderFiles(root / "dataset.yaml").listed("train") == SPLITS["train"]
    (root / "dataset.yaml").write_text((root / "dataset.yaml").read_text().replace("test: val.txt", "test: tests.txt"))
    problems = [problem for summary in check_source(FolderFiles(root)) for problem in summary.problems]
    assert any("tests.txt: cannot be read (No such file" in str(problem) for problem in problems)
    with pytest.raises(UserError, match=r"tests.txt: cannot be read \(No such file"):
        StoredSamples(FolderFiles(root), "test", [], (8, 10), mean=(0, 0, 0), std=(1, 1, 1))
    assert set(source.read("a")) == {"id", "image", "depth"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dataset.yaml holds no keys, it declares the tasks of the data"),
        ("tasks: {}", "tasks is empty"),
        ("tasks: [depth]", r"tasks: expected keys and values, found \['depth'\]"),
        ("tasks: {d: {kind: depth}}\ntasks: {e: {kind: depth}}", "line 2, column 1: the key 'tasks' is there twice"),
        ("tasks: {d: {kind: depth, kind: values}}", "line 1, column 26: the key 'kind' is there twice"),
        ("task: {}", "unknown key in .* 'task': did you mean 'tasks'"),
        ("tasks: {image: {kind: depth}}", r"a label cannot be named 'image': a sample uses the keys \('id', 'image'\)"),
        ("tasks: {id: {kind: depth}}", "a label cannot be named 'id'"),
        ("tasks: {d: {knd: depth}}", "unknown key in .*tasks.d 'knd': did you mean 'kind'"),
        ("tasks: {d: {}}", "tasks.d: kind is missing"),
        ("tasks: {d: {kind: dept}}", "unknown kind 'dept': did you mean 'depth'"),
        ("tasks: {d: {kind: depth, units: km}}", "unknown unit of depth 'km'"),
        ("tasks: {d: {kind: classes}}", "num_classes must be from 2"),
        ("tasks: {d: {kind: values, range: [2, 1]}}", "range"),
        ("tasks: {d: {kind: normals, flip: [q]}}", "flip"),
        ("tasks: {d: 3}", "expected keys and values"),
        ("tasks: {d: {kind: depth}}\nsplits: {training: a}", "train is missing"),
        ("tasks: {d: {kind: depth}}\nsplits: {train: a, vall: b}", "did you mean 'val'"),
        ("tasks: [", "correct the YAML there"),
        ("tasks: {d: {kind: classes, num_classes: ten}}", "num_classes must be from 2"),
        ("tasks: {d: {kind: classes, num_classes: true}}", "num_classes must be from 2"),
        ("tasks: {d: {kind: classes, num_classes: 2.5}}", "num_classes must be from 2"),
        ("tasks: {d: {kind: classes, num_classes: [a]}}", "num_classes must be from 2"),
        ("tasks: {d: {kind: classes, num_classes: [a, 3]}}", "num_classes: the name 3 is no text, quote it"),
        ("tasks: {d: {kind: values, range: [null, 5]}}", r"range \[None, 5\]: give a smallest and a largest value"),
        ("tasks: {d: {kind: values, range: [0, high]}}", r"range \[0, 'high'\]: give a smallest"),
        ("tasks: {d: {kind: values, range: [0, .nan]}}", r"range \[0, nan\]: give a smallest"),
        ("tasks: {d: {kind: values, range: 5}}", "range 5: give a smallest"),
        ("tasks: {d: {kind: depth, ignore: [none]}}", r"ignore \['none'\]: give a number or a list of numbers"),
        ("tasks: {d: {kind: depth, ignore: none}}", "ignore 'none': give a number"),
        ("tasks: {d: {kind: normals, flip: 3}}", "flip 3: name axes out of x, y and z"),
        ("tasks: {d: {kind: normals, flip: [[x]]}}", r"flip \[\['x'\]\]: name axes"),
        ("tasks: {d: {kind: depth, scale: .nan}}", "scale nan: give a finite number other than 0"),
        ("tasks: {d: {kind: depth, scale: .inf}}", "scale inf: give a finite number other than 0"),
        ("tasks: {d: {kind: values, scale: 0}}", "scale 0: give a finite number other than 0"),
        ("tasks: {d: {kind: values, scale: half}}", "scale 'half': give a finite number"),
        ("tasks: {d: {kind: values, partial: maybe}}", "partial 'maybe': give true or false"),
        ("tasks: {d: {kind: values, units: 3}}", "units 3 is no text, quote it"),
        ("tasks: {d: {kind: values, folder: 3}}", "folder 3 is no text, quote it"),
        ("tasks: {d: {kind: values, column: [a]}}", r"column \['a'\] is no text, quote it"),
        ("tasks: {d: {kind: classes, num_classes: 3, scale: 2}}", "scale is of no use to kind classes, delete it"),
        ("tasks: {d: {kind: classes, num_classes: 3, range: [0, 1]}}", "range is of no use to kind classes"),
        ("tasks: {d: {kind: classes, num_classes: 3, units: m}}", "units is of no use to kind classes"),
        ("tasks: {d: {kind: classes, num_classes: 3, flip: x}}", "flip is of no use to kind classes"),
        ("tasks: {d: {kind: normals, scale: 2}}", "scale is of no use to kind normals"),
        ("tasks: {d: {kind: depth, flip: x}}", "flip is of no use to kind depth"),
        ("tasks: {d: {kind: values, num_classes: 3}}", "num_classes is of no use to kind values"),
        ("tasks: {d: {kind: depth}}\nsplits: {train: 3}", "splits.train 3: name its list, or the split of a table"),
        ("tasks: {d: {kind: depth}}\nsplits: {train: a, val: null}", "splits.val None: name its list"),
        ("tasks: {d: {kind: depth}}\nsplits: null", "train is missing"),
        ("tasks: {d: {kind: depth}}\nimages: 3", "images 3 is no text, quote it"),
        ("tasks: {d: {kind: depth}}\nimages: null", "images is empty, name a folder or delete the key"),
        ("tasks: {d: {kind: depth}}\nhuggingface: parquet", "huggingface 'parquet': give arguments of load_dataset"),
    ],
)
def test_a_wrong_declaration_is_named(root: Path, text: str, message: str):
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        FolderFiles(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("semseg", np.full(SHAPE, 3), "value 3 at row 0, column 0 is outside the declared 0 to 2, ignored 255 "),
        ("semseg", np.full(SHAPE, 0.5), "value 0.5"),
        ("semseg", np.zeros((*SHAPE, 2)), "expected numbers"),
        ("depth", np.full(SHAPE, -3.0), "value -0.003"),
        ("depth", np.full(SHAPE, 2e6), "value 2000"),
        ("normals", np.full((*SHAPE, 3), 2.0), "length 3.4641 at row 0, column 0 is not that of a unit normal"),
        ("normals", np.ones(SHAPE), "expected .H, W, 3."),
        ("normals", np.full((*SHAPE, 3), "0.1"), "<U3 .12, 16, 3., expected .H, W, 3."),
        ("normals", np.zeros((*SHAPE, 3), complex), "complex128"),
        ("height", np.full(SHAPE, 5.5), "value 5.5 .* declared 0 to 5"),
        ("height", np.full(SHAPE, np.inf), "value inf"),
    ],
)
def test_a_value_outside_the_declaration_is_named_with_its_place(root: Path, name: str, array: Any, message: str):
    (root / name / "a.png").unlink(missing_ok=True)
    np.save(root / name / "a.npy", array)
    with pytest.raises(UserError, match=f"{name}/a.npy: .*{message}"):
        first(root)


def test_a_label_that_lies_on_the_turned_image_is_told_so(root: Path):
    (root / "semseg" / "a.png").unlink()
    np.save(root / "semseg" / "a.npy", np.zeros((WIDTH, HEIGHT)))
    with pytest.raises(UserError, match="bring both to one size: images are taken as stored, whatever EXIF data say"):
        first(root)


def test_tasks_have_to_fit_the_declaration(root: Path):
    with pytest.raises(UserError, match=r"task 'semseg' has 4 classes but dataset\.yaml declares 3"):
        FolderFiles.for_tasks(root, [bt.SemanticSegmentation("semseg", num_classes=4)])
    with pytest.raises(UserError, match="task 'depth' wants 'values' targets"):
        FolderFiles.for_tasks(root, [bt.Saliency("depth")])
    with pytest.raises(UserError, match="did you mean 'depth'"):
        FolderFiles.for_tasks(root, [bt.Depth("dept")])
