"""What the report reads of a finished run's directory; the gallery, which needs the data too, is read elsewhere."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from branchtune.affinity import Affinity
from branchtune.config import RunConfig
from branchtune.cost import TreeCost, tree_cost
from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.json_file import read_json
from branchtune.report.page.run_reference import run_reference
from branchtune.run.directory import load_settings, model_folder
from branchtune.run.results import Results
from branchtune.shipping.config import ModelConfig
from branchtune.shipping.files import DECODERS
from branchtune.shipping.load import read_model_config

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class RunData:
    """A finished run.

    Attributes:
        path: its directory.
        config: its configuration.
        results: its numbers.
        manifest: where they come from.
        model: what its model says of itself.
        cost: of its tree, by node.
        decoders: parameters of each task's decoder.
        affinity: None for a method without a measured one.
        metrics: the rows of metrics.csv by task: numbers by name, `epoch` among them; empty cells are left out.
        conflict: the rows of conflict.csv: `level`, `node`, `task_a`, `task_b`, and the numbers `epoch`, `cosine`.
        reference: what its gains are over; None where it has none, or for the reason `no_reference`.
    """

    path: Path
    config: RunConfig
    results: Results
    manifest: dict[str, Any]
    model: ModelConfig
    cost: TreeCost
    decoders: dict[str, int]
    affinity: Affinity | None
    metrics: dict[str, list[dict[str, float]]]
    conflict: list[dict[str, Any]]
    reference: Reference | None
    no_reference: str | None

    @property
    def tasks(self) -> list[str]:
        return list(self.results.headline)

    @property
    def image_size(self) -> str:
        return "×".join(map(str, self.config.data.image_size))

    @property
    def images(self) -> dict[str, int]:
        """How many images each split has that the run opened; nothing in a manifest of older versions."""
        opened = self.manifest.get("data", {})
        return {split: opened[split]["samples"] for split in ("train", "val", "test") if split in opened}


def read_run(path: Path) -> RunData:
    """Read everything but images.

    Raises:
        UserError: the folder is no finished run, has no model, or one of its files is damaged.
    """
    config, folder = load_settings(path).config, model_folder(path)
    results, model = Results.load(path / "results.json"), read_model_config(folder)
    affinity = path / "affinity.json"
    return RunData(
        path,
        config,
        results,
        read_json(path / "manifest.json", missing="is this a finished run?", damaged="copy the run again"),
        model,
        tree_cost(model.spec, model.tree, model.adapter),
        _decoder_sizes(folder / DECODERS),
        Affinity.load(affinity) if affinity.exists() else None,
        read_metrics(path / "metrics.csv"),
        _conflict(path / "conflict.csv"),
        *run_reference(config.reference, results),
    )


def read_metrics(path: Path) -> dict[str, list[dict[str, float]]]:
    """The rows of a metrics.csv by task, in order; nothing where there is no such file (a run without validation)."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in _rows(path):
        try:
            task = row.pop("task")
            if not task:
                raise ValueError("a row without a task")
            numbers = {key: float(value) for key, value in row.items() if value}
            found.setdefault(task, []).append({k: v for k, v in numbers.items() if math.isfinite(v)})
            _ = found[task][-1]["epoch"]
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
    return found


def _conflict(path: Path) -> list[dict[str, Any]]:
    try:
        return [
            {**row, "epoch": float(row["epoch"]), "level": int(row["level"]), "cosine": float(row["cosine"])}
            for row in _rows(path)
            if row["cosine"] and row["node"] and row["task_a"] and row["task_b"]
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({type(error).__name__}: {error}): copy the run again, or delete the file")


def _decoder_sizes(path: Path) -> dict[str, int]:
    """Parameters by task, from the file's header."""
    sizes: Counter[str] = Counter()
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118
                if not key.endswith(_STATISTICS):
                    sizes[key.partition(".")[0]] += math.prod(file.get_slice(key).get_shape())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): copy the run again") from error
    return dict(sizes)
