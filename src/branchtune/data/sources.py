"""The kinds of stored data by name, and which one a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from branchtune.data.declared import read_declaration
from branchtune.data.declared_label import FILE
from branchtune.data.folder import FolderFiles
from branchtune.data.label_files import LabelFiles
from branchtune.data.nyud import NYUDFiles
from branchtune.data.pascal import PASCALFiles
from branchtune.data.rows import Rows
from branchtune.data.source import Source
from branchtune.errors import UserError, unknown
from branchtune.tasks.task import Task

LAYOUTS: dict[str, type[LabelFiles]] = {"nyud": NYUDFiles, "pascal": PASCALFiles, "folder": FolderFiles}
KINDS = (*LAYOUTS, "huggingface")


def open_source(kind: str, root: str | Path, tasks: Sequence[Task] | None) -> Source:
    """The labels of `tasks` in the data at `root`; None for every label that is there.

    Raises:
        UserError: unknown kind or task, or data that are not of this kind.
    """
    if kind not in KINDS:
        raise unknown("kind of data", kind, KINDS)
    if kind == "huggingface":
        return Rows.load(root, tasks)
    layout = LAYOUTS[kind]
    return layout.all_of(root) if tasks is None else layout.for_tasks(root, tasks)


def recognise(root: Path) -> str:
    """The kind of the data at `root`, by what lies there."""
    if root.is_file() or (root / FILE).is_file():
        return "huggingface" if read_declaration(root).huggingface is not None else "folder"
    if (root / "gt_sets").is_dir():
        return "nyud"
    if (root / "ImageSets").is_dir():
        return "pascal"
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    raise UserError(f"{root}: holds none of gt_sets/ (NYUD_MT), ImageSets/ (PASCAL_MT) and {FILE} (your own data)")
