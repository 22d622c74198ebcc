"""`branchtune check-data` names every kind of bad input; `fit` refuses or skips it, and counts what it skipped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_nyud import FIRST, LAST, corrupt_image, list_twice, other_size, out_of_range, overlap, unlink, unlink_image
from branchtune.cli.main import main
from branchtune.data.problems import Problem, describe_skipped
from folder_tree import write_folder_tree
from nyud_tree import HEIGHT, SPLITS, WIDTH, write_nyud_tree
from pascal_tree import write_pascal_tree
from tiny_run import write_config

BAD: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "an id listed twice": (list_twice, f"train: listed twice: .*train.txt: {FIRST} is listed twice", 4),
    "a split that overlaps": (overlap, f"train: in two splits: .*train.txt: {SPLITS['val'][0]} is in .*val.txt too", 4),
    "a missing label": (unlink, f"train: missing file: .*depth/{LAST}.npy is missing", 3),
    "a corrupt image": (corrupt_image, f"train: bad content: .*{LAST}.jpg: cannot be decoded", 3),
    "a label of another size": (other_size, rf"{LAST}.npy: size \[5, 6\] differs", 3),
    "a value out of range": (out_of_range, f"{LAST}.png: value 41 is above", 3),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_nyud_tree(tmp_path / "nyud")


def check(*arguments: object) -> int:
    return main(["check-data", *map(str, arguments), "--quiet"])


@pytest.mark.parametrize(
    ("write", "kind"), [(write_nyud_tree, "nyud"), (write_pascal_tree, "pascal"), (write_folder_tree, "folder")]
)
def test_a_clean_tree_is_recognised_and_passes(
    tmp_path: Path, write: Callable[[Path], Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "data")
    assert check(root) == 0
    out = capsys.readouterr().out
    assert f"{kind}, train 4 listed, val 2 listed" in out
    assert "no problems found" in out


@pytest.mark.parametrize("case", BAD)
def test_check_data_names_it(root: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message, _ = BAD[case]
    spoil(root)
    assert check(root) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.out), captured.out
    assert "1 problem, each named above" in captured.err


@pytest.mark.parametrize("case", BAD)
def test_fit_refuses_it(tmp_path: Path, root: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, _, _ = BAD[case]
    spoil(root)
    config = write_config(tmp_path, root)
    # seen when it is opened or when it is read, hence all of the data in one step
    assert main(["fit", str(config), "--quiet", "--data.batch_size=4", "--trainer.max_epochs=1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert LAST in error or FIRST in error or SPLITS["val"][0] in error


@pytest.mark.parametrize("case", BAD)
def test_fit_skips_and_counts_it(tmp_path: Path, root: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, _, left = BAD[case]
    spoil(root)
    config = write_config(tmp_path, root)
    arguments = ["--method=decoders", "--trainer.max_epochs=1", "--data.on_bad=skip", "--tree.groups=null"]
    assert main(["fit", str(config), "--quiet", *arguments]) == 0
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "runs" / "tiny" / "manifest.json").read_text())["data"]
    assert out.count("train: skipped 1 " + ("repeated id" if spoil is list_twice else "image")) == 1
    assert report["train"]["samples"] == left
    assert len(report["train"]["problems"]) == 1
    assert report["val"] == {"samples": 2, "skipped": 0, "problems": []}


def test_a_run_is_not_continued_on_other_data(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, root)
    arguments = ["fit", str(config), "--quiet", "--method=decoders", "--trainer.max_epochs=1", "--data.on_bad=skip"]
    assert main(arguments) == 0
    (tmp_path / "runs" / "tiny" / "results.json").unlink()
    unlink(root)
    assert main(arguments) == 2
    assert "split 'train' has 3 samples, but this run began with 4" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_list_that_cannot_be_read_hides_nothing_of_another_split(
    root: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    unlink(root)
    (root / "gt_sets" / "val.txt").write_bytes(content)
    assert check(root) == 2
    out = capsys.readouterr().out
    assert f"depth/{LAST}.npy is missing" in out
    assert "val: bad list: " in out
    assert "train: bad list" not in out


@pytest.mark.parametrize("spoil", [corrupt_image, unlink_image])
def test_a_bad_image_hides_no_bad_label(
    root: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(root)
    out_of_range(root)
    assert check(root) == 2
    captured = capsys.readouterr()
    assert f"{LAST}.jpg" in captured.out
    assert f"{LAST}.png: value 41 is above" in captured.out
    assert "2 problems" in captured.err


def test_skipping_is_advised_where_it_helps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlink(root)
    assert check(root) == 2
    assert "data.on_bad=skip trains without them" in capsys.readouterr().err
    (root / "gt_sets" / "val.txt").write_text("")
    assert check(root) == 2
    assert "on_bad" not in capsys.readouterr().err


def test_what_is_skipped_is_counted_in_images() -> None:
    problems = [Problem("train", "a", "missing file", f"{name}/a is missing") for name in ("x", "y", "z", "w")]
    assert describe_skipped(problems).startswith("skipped 1 image (missing file 4): x/a is missing; y/a")
    problems += [Problem("train", "b", "bad content", "b"), Problem("train", "c", "listed twice", "c is listed twice")]
    assert describe_skipped(problems).startswith("skipped 2 images and 1 repeated id (missing file 4, bad content 1, ")
    problems.append(Problem("train", "a", "listed twice", "a is listed twice"))
    assert describe_skipped(problems).startswith("skipped 2 images and 1 repeated id (")


def test_several_problems_are_all_named_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for spoil in (unlink, other_size, out_of_range):
        spoil(root)
    list_twice(root)
    assert check(root) == 2
    captured = capsys.readouterr()
    assert "4 problems" in captured.err
    (root / "gt_sets" / "val.txt").write_text("")
    assert check(root) == 2
    assert "val: bad list: " in capsys.readouterr().out


def test_a_set_without_any_usable_sample_is_refused(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (root / "edge").iterdir():
        file.unlink()
    config = write_config(tmp_path, root)
    assert main(["fit", str(config), "--data.on_bad=skip", "--quiet"]) == 2
    assert "none of its samples can be used (2 problems, the first: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_ranges_and_class_balance_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder_tree(tmp_path / "own")
    for split_ids in ("a", "b", "c", "d"):
        Image.fromarray(np.repeat([[0] * 16, [1] * 16], [9, 3], axis=0).astype(np.uint8)).save(
            root / "semseg" / f"{split_ids}.png"
        )
    assert check(root) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 classes; most road (75.0%), car (25.0%); absent person" in out
    assert "12x16 pixels" in out
    assert " m, mean " in out


def test_all_lists_every_class(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = np.repeat([1, 2, 3, 4, 5, 6], [72, 48, 36, 18, 12, 6]).reshape(HEIGHT, WIDTH).astype(np.uint8)
    for file in (root / "segmentation").iterdir():
        Image.fromarray(shares).save(file)
    found = []
    for arguments in ([], ["--all"]):
        assert check(root, "--splits=[val]", "--tasks=[semseg]", *arguments) == 0
        found.append(" ".join(capsys.readouterr().out.split()))
    assert "6 of 40 classes; most 0 (37.5%), 1 (25.0%), 2 (18.8%); least 5 (3.1%); absent 6, 7, " in found[0]
    assert "13, ..." in found[0]
    balance = "6 of 40 classes: 0 (37.5%), 1 (25.0%), 2 (18.8%), 3 (9.4%), 4 (6.2%), 5 (3.1%); absent 6, 7, "
    assert balance in found[1]
    assert found[1].count("...") == found[0].count("...") - 1


@pytest.mark.parametrize(
    ("write", "folder", "absent"),
    [
        (write_nyud_tree, "depth", {"depth": "depth/"}),
        (write_pascal_tree, "pascal-context/trainval", dict.fromkeys(("normals", "edge"), "pascal-context/trainval/")),
        (write_pascal_tree, "semseg", {"semseg": "semseg/VOC12/ or semseg/pascal-context/"}),
    ],
)
def test_a_label_whose_folder_is_not_there_is_named(
    tmp_path: Path,
    write: Callable[[Path], Path],
    folder: str,
    absent: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write(tmp_path / "data")
    shutil.rmtree(root / folder)
    assert check(root) == 0  # whoever has only some of the labels trains on those
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == [f"note: there is no label {name!r}, {where} does not exist" for name, where in absent.items()]
    for name, where in absent.items():
        assert check(root, f"--tasks=[{name}]") == 2
        assert f"there is no label {name!r}, {where} does not exist" in capsys.readouterr().err
    present = "sal" if "sal_distill" in {path.name for path in root.iterdir()} else "edge"
    assert check(root, f"--tasks=[{present}]") == 0
    assert "note: " not in capsys.readouterr().out


def test_a_contact_sheet_is_written(root: Path, tmp_path: Path) -> None:
    assert check(root, f"--sheet={tmp_path / 'sheet.png'}", "--rows=2", "--tasks=[depth,normals]") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 4 * 128
        assert sheet.width == 3 * round(128 * WIDTH / HEIGHT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "path"),
        (["nowhere"], "nowhere: no such folder"),
        (["."], "holds none of gt_sets/"),
        (["{root}", "--tasks=[dept]"], "did you mean 'depth'"),
        (["{root}", "--splits=[trian]"], "did you mean 'train'"),
        (["{root}", "--kind=pascall"], "kind"),
        (["{root}", "--limit=0"], "--limit=0: must be at least 1"),
        (["{root}", "--kind=folder"], "dataset.yaml: no such file"),
    ],
)
def test_wrong_arguments(root: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*[argument.replace("{root}", str(root)) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_workers_find_what_the_main_process_finds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt_image(root)
    printed = []
    for workers in (0, 2):
        assert check(root, f"--workers={workers}") == 2
        lines = capsys.readouterr().out.splitlines()
        printed.append([line for line in lines if not line.startswith("read ")])
    assert printed[0] == printed[1]


def test_a_whole_run_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    root = write_folder_tree(tmp_path / "own")
    config = write_config(tmp_path, tmp_path / "nyud")
    tasks = (
        "{semseg: {class_path: branchtune.SemanticSegmentation, init_args: {name: semseg, num_classes: 3}}, "
        "depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    )
    arguments = ["--data.kind=folder", f"--data.root={root}", f"--tasks={tasks}", "--trainer.max_epochs=1"]
    arguments += ["--tree.groups=[1,1,1,2]", "--data.interpolation=cubic", "--data.pin_memory=true"]
    assert main(["fit", str(config), "--quiet", *arguments]) == 0
    assert (tmp_path / "runs" / "tiny" / "results.json").is_file()


def test_an_unknown_option_is_named_and_the_known_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "data", "--layout", "nyud"]) == 2
    assert "unknown configuration key 'layout' (known:" in capsys.readouterr().err
