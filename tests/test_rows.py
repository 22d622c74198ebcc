"""Tables of images and labels: plain rows, and Hugging Face `datasets` where it is installed."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import branchtune as bt
from branchtune.cli.main import main
from branchtune.data.check import check_source
from branchtune.data.collate import Collate
from branchtune.data.declared import read_declaration
from branchtune.data.rows import Rows
from branchtune.data.stored import StoredSamples
from branchtune.errors import UserError
from tiny_run import write_config

HEIGHT, WIDTH = 12, 16
SHAPE = (HEIGHT, WIDTH)
# The columns of the public NYUv2 tables: channels first, floats, 13 classes with -1 unlabelled.
YAML = """
huggingface: {path: parquet, data_files: {train: train.parquet, validation: val.parquet}}
splits: {train: train, val: validation}
tasks:
  semseg: {kind: classes, num_classes: 13, ignore: -1, column: segmentation}
  depth: {kind: depth, ignore: 0}
  normals: {kind: normals, column: normal}
"""


def tasks() -> list[bt.Task]:
    return [bt.SemanticSegmentation("semseg", num_classes=13), bt.Depth("depth"), bt.Normals("normals")]


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        normal = rng.normal(size=(3, *SHAPE))
        depth = rng.uniform(0.5, 9, size=(1, *SHAPE)).astype(np.float32)
        depth[0, 0, 0] = 0
        rows.append(
            {
                "image": rng.uniform(size=(3, *SHAPE)).astype(np.float32),
                "segmentation": rng.integers(-1, 13, size=SHAPE),
                "depth": depth,
                "normal": (normal / np.linalg.norm(normal, axis=0)).astype(np.float32),
            }
        )
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.yaml").write_text(YAML)
    return tmp_path


def with_cache(folder: Path, text: str) -> str:
    """Write a declaration whose cache lies in the folder too."""
    text = text.replace("path: parquet", f"path: parquet, cache_dir: {folder / 'cache'}")
    (folder / "dataset.yaml").write_text(text)
    return text


def write_parquet(folder: Path, train: list[dict[str, Any]], val: list[dict[str, Any]]) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    for name, part in (("train", train), ("val", val)):
        columns = {key: [row[key].tolist() for row in part] for key in part[0]}
        parquet.write_table(arrow.table(columns), folder / f"{name}.parquet")


def source(folder: Path, rows: list[dict[str, Any]], **tables: Any) -> Rows:
    return Rows({"train": rows, **tables}, read_declaration(folder))


def test_channels_first_floats_follow_the_contract(folder: Path):
    rows = make_rows(3)
    data = StoredSamples(source(folder, rows), "train", tasks(), SHAPE, mean=(0, 0, 0), std=(1, 1, 1))
    batch = Collate(tasks())([data[index] for index in range(3)])
    assert batch["id"] == ["train-000000", "train-000001", "train-000002"]
    torch.testing.assert_close(batch["image"][0], torch.from_numpy(rows[0]["image"]))
    classes = torch.from_numpy(rows[0]["segmentation"])
    assert torch.equal(batch["semseg"][0], classes.where(classes >= 0, 255))
    torch.testing.assert_close(batch["depth"][0][1:], torch.from_numpy(rows[0]["depth"][0, 1:]))
    assert batch["depth"][0, 0, 0].isnan()
    torch.testing.assert_close(batch["normals"][0], torch.from_numpy(rows[0]["normal"]))


def test_pictures_are_decoded_too(folder: Path):
    row = make_rows(1)[0]
    row["image"] = Image.fromarray(np.full((*SHAPE, 3), 7, np.uint8))
    row["segmentation"] = Image.fromarray(np.full(SHAPE, 4, np.uint8))
    sample = source(folder, [row]).read("train-000000")
    assert (sample["image"] == 7).all()
    assert (sample["semseg"] == 4).all()


def test_pictures_of_16_bits_are_not_clipped(folder: Path):
    row = make_rows(1)[0]
    row["image"] = Image.fromarray(np.linspace(0, 65535, HEIGHT * WIDTH).reshape(SHAPE).astype(np.uint16))
    image = source(folder, [row]).read("train-000000")["image"]
    assert (np.asarray(image) == 255).mean() < 0.05


def test_nested_lists_are_arrays(folder: Path):
    row = {key: np.asarray(value).tolist() for key, value in make_rows(1)[0].items()}
    assert source(folder, [row]).read("train-000000")["normals"].shape == (3, *SHAPE)


def test_ids_come_from_their_column_and_may_not_be_in_two_splits(folder: Path):
    (folder / "dataset.yaml").write_text("id: name\n" + YAML)
    train = [{**row, "name": f"r{i}"} for i, row in enumerate(make_rows(3))]
    again = {**make_rows(1, seed=9)[0], "name": "r1"}
    found = source(folder, train, val=[again])
    for split, row in ((None, again), ("val", again), ("train", train[1])):  # None: the row that is kept
        np.testing.assert_allclose(found.read("r1", split)["normals"], row["normal"], rtol=1e-5)
        label = found.read_label("r1", "normals", split)
        assert label is not None
        np.testing.assert_allclose(label, row["normal"], rtol=1e-5)
    assert found.listed("val") == ["r1"]
    assert [problem.kind for problem in found.describe_split("train")] == ["in two splits"]


def numbered(folder: Path, train: int, val: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows whose ids count from 0 in each split."""
    (folder / "dataset.yaml").write_text("id: number\n" + YAML)
    parts = make_rows(train), make_rows(val, seed=9)
    for rows in parts:
        for number, row in enumerate(rows):
            row["number"] = number
    return parts


def test_a_split_is_its_own_rows_where_ids_count_from_0_in_each(folder: Path):
    train, val = numbered(folder, 4, 2)
    options: Any = {"mean": (0, 0, 0), "std": (1, 1, 1), "on_bad": "skip"}
    for split, rows, ids in (("train", train, ["2", "3"]), ("val", val, ["0", "1"])):
        data = StoredSamples(source(folder, train, val=val), split, tasks(), SHAPE, **options)
        data.prepare()
        assert data.ids == ids
        for index, id_ in enumerate(ids):
            torch.testing.assert_close(data[index]["image"], torch.from_numpy(rows[int(id_)]["image"]))


def test_a_bad_row_is_found_though_another_split_has_its_id(folder: Path):
    train, val = numbered(folder, 3, 2)
    val[1]["depth"] = None
    _, summary = check_source(source(folder, train, val=val))
    assert [problem.text for problem in summary.problems] == [
        "the table, row 1 of 'val': column 'depth' is empty, fill it or declare the label as partial"
    ]


def test_an_empty_cell_is_refused_unless_the_label_is_partial(folder: Path):
    rows = make_rows(1)
    rows[0]["depth"] = None
    with pytest.raises(UserError, match="row 0 of 'train': column 'depth' is empty"):
        source(folder, rows).read("train-000000")
    (folder / "dataset.yaml").write_text(YAML.replace("kind: depth", "kind: depth, partial: true"))
    assert "depth" not in source(folder, rows).read("train-000000")


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("image", None, "column 'image': is empty"),
        ("image", np.full((3, *SHAPE), 300), "values from 0 to 300"),
        ("image", np.zeros(SHAPE), "expected a picture"),
        ("segmentation", np.full(SHAPE, 13), "value 13 .* declared 0 to 12"),
        ("depth", np.ones((1, 5, 6)), r"size \[5, 6\] differs"),
        ("depth", [[1, 2], [3]], "rows of different lengths, make them equally long"),
        ("image", [[[1, 2, 3]], [[1, 2]]], "rows of different lengths"),
        ("normal", [[["a", "b", "c"]]], "<U1"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(folder: Path, column: str, cell: Any, message: str):
    rows = make_rows(2)
    rows[1][column] = cell
    with pytest.raises(UserError, match=f"row 1 of 'train', column '{column}': .*{message}|row 1.*{message}"):
        source(folder, rows).read("train-000001")


def test_the_package_is_asked_for_where_it_is_absent(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"pip install 'branchtune\[hf\]'"):
        Rows.load(folder)


def test_parquet_files_are_read_through_datasets(folder: Path):
    pytest.importorskip("datasets", reason="the optional extra hf is not installed")
    text = with_cache(folder, YAML)
    rows = make_rows(3)
    write_parquet(folder, rows[:2], rows[2:])
    found = Rows.load(folder, tasks())
    assert (len(found.listed("train")), len(found.listed("val"))) == (2, 1)
    torch.testing.assert_close(found.read("val-000000")["image"], torch.from_numpy(rows[2]["image"]))
    (folder / "dataset.yaml").write_text(text.replace("column: normal", "column: normall"))
    with pytest.raises(UserError, match="did you mean 'normal'"):
        Rows.load(folder, tasks())


def with_pictures(folder: Path, spoil: str) -> None:
    """Parquet files of encoded pictures; in the last row of train the column `spoil` holds none."""
    datasets = pytest.importorskip("datasets", reason="the optional extra hf is not installed")
    columns = ("image", "segmentation")
    with_cache(folder, YAML[: YAML.index("  depth:")] + "  other: {kind: values, column: other}\n")
    features = datasets.Features({name: datasets.Image() for name in (*columns, "other")})
    for name in ("train", "val"):
        rows = [dict.fromkeys(features, encoded(np.ones(SHAPE, np.uint8))) for _ in range(2)]
        if name == "train":
            rows[1][spoil] = {"bytes": b"no picture", "path": None}
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{name}.parquet")


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.mark.parametrize("column", ["image", "segmentation"])
def test_a_cell_that_cannot_be_decoded_is_named_once(folder: Path, column: str):
    with_pictures(folder, column)
    summary, _ = check_source(Rows.load(folder))
    assert [problem.text for problem in summary.problems] == [
        f"parquet, row 1 of 'train', column {column!r}: cannot be decoded (no known image format), "
        "restore it or leave it out"
    ]


def test_only_the_columns_of_the_tasks_have_to_be_whole(folder: Path):
    with_pictures(folder, "other")
    sample = Rows.load(folder, tasks()[:1]).read("train-000001")
    assert set(sample) == {"id", "image", "semseg"}


def test_a_table_without_splits_is_checked_and_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("datasets", reason="the optional extra hf is not installed")
    with_cache(folder, "\n".join(line for line in YAML.splitlines() if not line.startswith("splits:")))
    rows = make_rows(6)
    write_parquet(folder, rows[:4], rows[4:])
    assert main(["check-data", str(folder), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "huggingface, train 4 listed, val 2 listed" in out
    assert "no problems found" in out
    listed = (
        "{semseg: {class_path: branchtune.SemanticSegmentation, init_args: {name: semseg, num_classes: 13}}, "
        "depth: {class_path: branchtune.Depth, init_args: {name: depth}}}"
    )
    arguments = ["--data.kind=huggingface", f"--data.root={folder}", f"--tasks={listed}", "--method=decoders"]
    config = write_config(folder, folder / "unused")
    assert main(["fit", str(config), "--quiet", "--trainer.max_epochs=1", "--tree.groups=null", *arguments]) == 0
    assert (folder / "runs" / "tiny" / "results.json").is_file()


def test_a_split_that_a_table_lacks_is_named(folder: Path):
    pytest.importorskip("datasets", reason="the optional extra hf is not installed")
    with_cache(folder, YAML.replace("val: validation", "val: valid"))
    rows = make_rows(2)
    write_parquet(folder, rows[:1], rows[1:])
    with pytest.raises(UserError, match=r"parquet: split 'valid' cannot be loaded .*, correct splits in dataset\.yaml"):
        Rows.load(folder, tasks())


@pytest.mark.parametrize("val", ["train", "train[80%:]"])
def test_splits_that_share_rows_are_refused(folder: Path, val: str):
    (folder / "dataset.yaml").write_text(YAML.replace("val: validation", f'val: "{val}"'))
    with pytest.raises(UserError, match=r"splits.train 'train' and splits.val 'train.*' share rows: give each its own"):
        read_declaration(folder)
    (folder / "dataset.yaml").write_text(
        YAML.replace("train: train, val: validation", 'train: "train[:80%]", val: "train[80%:]"')
    )
    assert read_declaration(folder).splits["val"] == "train[80%:]"


def test_a_bad_image_hides_no_bad_label(folder: Path):
    rows = make_rows(2)
    rows[1]["image"], rows[1]["segmentation"] = None, np.full(SHAPE, 13)
    summary, _ = check_source(source(folder, rows, val=make_rows(1, seed=1)))
    image, label = (problem.text for problem in summary.problems)
    assert "column 'image': is empty" in image
    assert "column 'segmentation': value 13" in label
