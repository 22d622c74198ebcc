"""The configurations in configs/: they parse, and every key says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import branchtune as bt
from branchtune.config import RunConfig
from branchtune.errors import UserError
from branchtune.settings import Settings
from contract_backbones import traced
from nyud_tree import write_nyud_tree
from pascal_tree import write_pascal_tree

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_parses_into_typed_objects(path: Path) -> None:
    config = Settings.load(path).config
    assert all(task.name == name for name, task in config.tasks.items())


# What a key means is said where the class is; `name` and `weight` of a task are said once.
SAID_ONCE = ("class_path", "name", "weight")


def keys_without_comment(text: str) -> list[str]:
    """Leaf keys whose line has no comment."""
    lines, missing = text.splitlines(), []

    def visit(node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name, line = key.value, lines[key.start_mark.line]
            if not isinstance(value, yaml.MappingNode) or not value.value:
                said = "#" in line or (path.startswith("tasks.") and name in SAID_ONCE) or name == "class_path"
                if not said:
                    missing.append(f"{path}{name}")
            visit(value, f"{path}{name}.")

    visit(yaml.compose(text), "")
    return missing


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_is_commented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert keys_without_comment(text) == []
    for key in yaml.safe_load(text):
        block = re.search(rf"^{key}:.*(?:\n[ #].*)*", text, re.MULTILINE)
        assert block is not None
        assert "#" in block.group(0), f"{path.name}: {key} has no comment"


def test_one_configuration_shows_every_key() -> None:
    shown = set(yaml.safe_load((CONFIGS[0].parent / "nyud_deit_tiny.yaml").read_text(encoding="utf-8")))
    assert shown == set(RunConfig.__dataclass_fields__)


PROTOCOL = [path for path in CONFIGS if path.stem.endswith("_448")]
WEIGHTS = {"semseg": 1, "depth": 1, "human_parts": 2, "sal": 5, "edge": 50, "normals": 10}
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_both_benchmarks_have_both_backbones() -> None:
    names = [f"{data}_{backbone}_448" for data in ("nyud", "pascal") for backbone in ("pvt_v2_b2", "swin_tiny")]
    assert [path.stem for path in PROTOCOL] == names


@pytest.mark.parametrize("path", PROTOCOL, ids=lambda path: path.stem)
def test_the_recipe_has_the_published_numbers(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = (
        ("semseg", "human_parts", "sal", "normals") if "pascal" in path.stem else ("semseg", "depth", "normals", "edge")
    )
    weights = {name: task["init_args"]["weight"] for name, task in recipe["tasks"].items()}
    assert weights == {name: WEIGHTS[name] for name in names}
    data, optimizer, trainer = recipe["data"], recipe["optimizer"]["init_args"], recipe["trainer"]
    assert (data["image_size"], data["batch_size"], data["interpolation"]) == ([448, 448], 32, "cubic")
    assert optimizer["backbone_lr"] == pytest.approx(5e-4 * data["batch_size"] / 512)
    assert optimizer["weight_decay"] == 0.05
    assert recipe["schedule"] == {"warmup_epochs": 20, "kind": "cosine"}
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (300, 5.0)
    augmentation = {"flip": 0.5, "scales": [1.0, 1.2, 1.5], "window": "centre"}
    if "pascal" in path.stem:
        augmentation = {"flip": 0.5, "scales": [1.0], "rotation": 20, "scale_range": [0.75, 1.25], "fill": "zero"}
    assert data["augmentation"] == augmentation
    if "swin" in path.stem:
        assert recipe["backbone"]["kwargs"] == {"drop_path_rate": 0.2}


@pytest.mark.parametrize("path", PROTOCOL, ids=lambda path: path.stem)
def test_the_recipe_reads_its_package_into_valid_batches(path: Path, tmp_path: Path) -> None:
    from branchtune.data.collate import Collate
    from branchtune.run.loaders import make_dataset

    write = write_pascal_tree if path.stem.startswith("pascal") else write_nyud_tree
    config = Settings.load(path, [f"--data.root={write(tmp_path / 'data')}"]).config
    tasks = list(config.tasks.values())
    for split in ("train", "val"):
        dataset = make_dataset(config.data, split, tasks, *MEAN_STD, config.seed)
        batch = Collate(tasks)([dataset[index] for index in range(len(dataset))])
        assert batch["image"].shape[1:] == (3, 448, 448)
        assert all(task.labelled(batch[task.name]).any() for task in tasks)


@pytest.mark.parametrize("path", [p for p in PROTOCOL if "swin" in p.stem], ids=lambda path: path.stem)
def test_the_recipe_compares_with_the_published_reference(path: Path, tmp_path: Path) -> None:
    from branchtune.progress import Reporter
    from branchtune.run.workbench import Workbench

    package = path.stem.partition("_")[0]
    overrides = [f"--reference={package}_swin_t_single_task"]
    if package == "nyud":  # of which three tasks are published: what the head of the file says to do
        with pytest.raises(UserError, match=r"no value for task 'edge': delete tasks\.edge from the configuration"):
            _ = Workbench(Settings.load(path, overrides).config, Reporter(quiet=True)).reference
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("  edge:")]
        path = tmp_path / path.name
        path.write_text("\n".join(kept), encoding="utf-8")
        overrides.append("--tree.groups=[1,1,2,3]")
    bench = Workbench(Settings.load(path, overrides).config, Reporter(quiet=True))
    assert bench.reference is not None
    assert set(bench.reference.metrics) == set(bench.names)
    affinity = bt.Affinity.from_matrix(bench.names, np.eye(len(bench.names)), traced("vit_tiny")[1])
    assert bt.plan(affinity, groups=bench.config.tree.groups).group_counts[-1] == len(bench.names)


@pytest.mark.slow
@pytest.mark.parametrize("path", PROTOCOL, ids=lambda path: path.stem)
def test_the_model_of_the_recipe_builds(path: Path) -> None:
    from branchtune.affinity import Affinity
    from branchtune.progress import Reporter
    from branchtune.run.workbench import Workbench

    bench = Workbench(Settings.load(path, ["--backbone.pretrained=false"]).config, Reporter(quiet=True))
    unrelated = Affinity.from_matrix(bench.names, np.eye(len(bench.names)), bench.spec)
    counts = bench.build(bench.plan(unrelated)).count_parameters()
    if path.stem == "pascal_swin_tiny_448":
        assert (counts["decoders"], counts["extras"]) == (1_946_624, 1_599_546)
    assert counts["adapters"] > 0
