"""predictions.json: of which model a folder's predictions are, of which images, and the names of their files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from branchtune.atomic import write_json
from branchtune.errors import UserError
from branchtune.json_file import read_json

NAME = "predictions.json"
FORMAT = 3  # 1 held the model's outputs instead of predictions, 2 did not name the files


@dataclass(frozen=True)
class PredictionRecord:
    """Who made what in a folder of predictions.

    Attributes:
        model: hashes of the model's files.
        images: path, size and time of the file that an image's predictions are of, by the image's name.
        files: of every image what the names of its files end with, such as "depth.npy".
        sheets: what the sheet of an image shows.
    """

    model: Mapping[str, str]
    images: Mapping[str, list[Any]] = field(default_factory=dict)
    files: Mapping[str, list[str]] = field(default_factory=dict)
    sheets: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> PredictionRecord | None:
        """The record of a folder; None where there is none.

        Raises:
            UserError: it is damaged or of another version.
        """
        note = folder / NAME
        if not note.exists():
            return None
        way = "choose another folder, or delete it with its predictions"
        content = read_json(note, missing=way, damaged=way)
        if not isinstance(content, dict) or not {"model", "images"} <= content.keys():
            raise UserError(f"{note} is damaged: {way}")
        if content.get("format") != FORMAT:
            raise UserError(f"{note} is of another version of branchtune: {way}")
        tables = [content["model"], content["images"], content.get("files"), content.get("sheets")]
        if not all(isinstance(table, dict) for table in tables) or not _names_files_here(content):
            raise UserError(f"{note} is damaged: {way}")
        return cls(*tables)

    def without(self, stems: Collection[str]) -> PredictionRecord:
        """What it says of all other images."""
        tables = [{s: table[s] for s in table if s not in stems} for table in (self.images, self.files, self.sheets)]
        return PredictionRecord(self.model, *tables)

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, {"format": FORMAT, **vars(self)})


def _names_files_here(content: Mapping[str, Any]) -> bool:
    """Whether everything that is deleted by the record is the name of a file and no path."""
    if not all(isinstance(endings, list) for endings in content["files"].values()):
        return False
    names = [*content["images"], *content["sheets"]]
    names += [f"{stem}.{ending}" for stem, endings in content["files"].items() for ending in endings]
    return all(name and os.path.basename(name) == name for name in names)
