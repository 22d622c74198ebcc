"""What can be wrong with the values of `dataset.yaml`, which YAML gives any type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any, get_args

from branchtune.data.declared_label import METRES, Label, LabelKind
from branchtune.errors import unknown
from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.task import RESERVED_NAMES

EVERY_KIND = ("kind", "ignore", "partial", "folder", "column")
OF_KIND: dict[str, tuple[str, ...]] = {
    "classes": ("num_classes",),
    "values": ("units", "scale", "range"),
    "depth": ("units", "scale", "range"),
    "normals": ("flip",),
}
SPLITS = ("train", "val", "test")


def label_problem(label: Label) -> str | None:
    """What is wrong with the declaration of a label, or None."""
    if label.kind not in get_args(LabelKind):
        return str(unknown("kind", str(label.kind), get_args(LabelKind)))
    return _unused(label) or _wrong_value(label.kind, vars(label))


def _unused(label: Label) -> str | None:
    plain, used = Label(label.kind), (*EVERY_KIND, *OF_KIND[label.kind])
    for key in (field.name for field in dataclasses.fields(Label)):
        if key not in used and getattr(label, key) != getattr(plain, key):
            return f"{key} is of no use to kind {label.kind}, delete it (used: {', '.join(used)})"
    return None


def _wrong_value(kind: LabelKind, values: Mapping[str, Any]) -> str | None:
    names, units, scale, flip, ignore = (values[key] for key in ("num_classes", "units", "scale", "flip", "ignore"))
    if kind == "classes":
        count = len(names) if isinstance(names, list) else names
        if not _is_whole(count) or not 2 <= count <= IGNORED_CLASS:
            return f"num_classes must be from 2 to {IGNORED_CLASS}, or a list of that many names"
        for name in names if isinstance(names, list) else ():
            if not isinstance(name, str):
                return f"num_classes: the name {name!r} is no text, quote it"
    if kind == "depth" and not (units is None or str(units) in METRES):
        return str(unknown("unit of depth", str(units), METRES))
    if not isinstance(flip, list) or any(axis not in ("x", "y", "z") for axis in flip):
        return f"flip {flip!r}: name axes out of x, y and z"
    if not _is_number(scale) or not math.isfinite(scale) or scale == 0:
        return f"scale {scale!r}: give a finite number other than 0"
    if values["range"] is not None and not _is_range(values["range"]):
        return f"range {values['range']!r}: give a smallest and a largest value"
    if ignore is not None and not (isinstance(ignore, list) and all(map(_is_number, ignore))):
        return f"ignore {ignore!r}: give a number or a list of numbers"
    if not isinstance(values["partial"], bool):
        return f"partial {values['partial']!r}: give true or false"
    return _no_text({key: values[key] for key in ("units", "folder", "column")})


def _overlapping(splits: Mapping[str, str]) -> tuple[str, str] | None:
    """Two splits of a table that are the same rows, or of which one is a slice of the other."""
    for one, other in combinations(splits, 2):
        rows, others = splits[one], splits[other]
        both_sliced = "[" in rows and "[" in others
        if rows == others or (not both_sliced and rows.partition("[")[0] == others.partition("[")[0]):
            return one, other
    return None


def declaration_problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the names of the labels and with the keys beside `tasks`, or None."""
    for name in content["tasks"]:
        if name in RESERVED_NAMES:
            return f"a label cannot be named {name!r}: a sample uses the keys {RESERVED_NAMES} for itself"
    splits = content["splits"]
    if not isinstance(splits, Mapping) or "train" not in splits:
        return "splits names the lists of train, val and test; train is missing"
    for split, name in splits.items():
        if split not in SPLITS:
            return str(unknown("split", str(split), SPLITS))
        if not isinstance(name, str):
            return f"splits.{split} {name!r}: name its list, or the split of a table"
    if content["huggingface"] is not None and (both := _overlapping(splits)):
        one, other = both
        return (
            f"splits.{one} {splits[one]!r} and splits.{other} {splits[other]!r} share rows: give each its own, such as "
            "'train[:80%]' and 'train[80%:]'"
        )
    for key in ("images", "image"):
        if content[key] is None:
            return f"{key} is empty, name a {'folder' if key == 'images' else 'column'} or delete the key"
    if not isinstance(content["huggingface"], Mapping | None):
        return f"huggingface {content['huggingface']!r}: give arguments of load_dataset, such as {{path: owner/name}}"
    return _no_text({key: content[key] for key in ("images", "image", "id")})


def _no_text(values: Mapping[str, Any]) -> str | None:
    for key, value in values.items():
        if not isinstance(value, str | None):
            return f"{key} {value!r} is no text, quote it"
    return None


def _is_range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
