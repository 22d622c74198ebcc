"""Imports point one way: a part of the package knows the parts before it, never those after it."""

from __future__ import annotations

import ast
from pathlib import Path

import branchtune

ROOT = Path(branchtune.__file__).parent
LAYERS = [
    {
        "_version",
        "errors",
        "scalars",
        "ignored",
        "tree",
        "atomic",
        "progress",
        "tables",
        "yaml_file",
        "json_file",
        "joint",
        "installed",
        "folded",
        "scoped",
        "modes",
    },
    {"metrics"},
    {"tasks"},
    {"backbone", "weight_loading", "images"},
    {"adapters", "frozen_linear", "reach", "route", "cost"},
    {"hooks", "recompute", "recompute_inputs", "branching", "streams"},
    {"decoders", "decoding"},
    {"pretrained"},
    {"model"},
    {"extension", "snapshot"},
    {"merging", "low_memory"},
    {"batch", "finite", "decoder_fit"},
    {"affinity"},
    {"planning"},
    {"data"},
    {"evaluation"},
    {"training", "config", "settings", "settings_errors"},
    {"shipping"},
    {"pictures"},
    {"run"},
    {"report"},
    {"demo", "comparison", "serving"},
    {"cli"},
]
PLACE = {part: index for index, parts in enumerate(LAYERS) for part in parts}


def imported(path: Path) -> set[str]:
    """The parts that a module imports when it is loaded; imports for types and inside functions do not count."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("branchtune."):
            found.add(str(node.module).split(".")[1])
    return found


def test_every_part_has_its_place() -> None:
    parts = {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    assert parts - {"__init__", "__main__", "__pycache__", "references", "weights"} == set(PLACE)


def test_no_part_imports_one_after_it() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in PLACE:
            wrong += [f"{path.name} ({part}) imports {o}" for o in imported(path) if PLACE[o] > PLACE[part]]
    assert not wrong
