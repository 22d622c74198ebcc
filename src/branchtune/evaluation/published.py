"""Published results of multi-task adaptation, with their sources, and the references that they are relative to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from branchtune.evaluation.delta_m import delta_m
from branchtune.evaluation.references import Reference

Status = Literal["stated", "recalled", "secondary"]
TOLERANCE = 0.02
SUFFIX = "_single_task"


@dataclass(frozen=True)
class PublishedRow:
    """One method in a published table.

    Attributes:
        method: its name.
        values: task -> headline value in the table's unit; a task whose value is not known is missing.
        delta_m: percent, as printed; None where none is known.
        params_millions: trainable parameters, as printed.
        counts: what `params_millions` counts; it differs between papers.
        source: where the row is from.
        status: `stated` in that source, `recalled` and to be verified before it is cited, or from a `secondary` source.
        note: what else to know, or empty.
    """

    method: str
    values: dict[str, float]
    delta_m: float | None
    params_millions: float | None
    counts: str | None
    source: str
    status: Status
    note: str = ""


@dataclass(frozen=True)
class PublishedMetric:
    """The headline metric of one task: its name here, the table's unit, its direction."""

    metric: str
    unit: Literal["percent", "degrees", "metres"]
    higher_is_better: bool


@dataclass(frozen=True)
class PublishedTable:
    """Rows of one protocol; the first one is the single-task reference of all.

    Attributes:
        id: its key in `published_tables`.
        dataset: that the numbers hold for.
        backbone: likewise.
        image_size: likewise, height and width.
        note: on how to read them.
        tasks: task -> its metric.
        rows: the methods.
    """

    id: str
    dataset: str
    backbone: str
    image_size: tuple[int, int]
    note: str
    tasks: dict[str, PublishedMetric]
    rows: tuple[PublishedRow, ...]

    def delta_m(self, row: PublishedRow) -> float | None:
        """Δm in percent computed from the row's own values; None where one of them is not known."""
        if set(row.values) != set(self.tasks):
            return None
        directions = {name: task.higher_is_better for name, task in self.tasks.items()}
        return delta_m(row.values, self.rows[0].values, directions)

    def contradictions(self) -> dict[str, tuple[float, float]]:
        """Method -> printed and computed Δm, where they differ by more than 0.02."""
        pairs = ((row.method, row.delta_m, self.delta_m(row)) for row in self.rows)
        return {
            method: (printed, computed)
            for method, printed, computed in pairs
            if printed is not None and computed is not None and abs(printed - computed) > TOLERANCE
        }

    def reference(self) -> Reference:
        """The single-task row as what Δm divides by, in the units of this package's metrics (fractions, not percent).

        It holds for the protocol of the table alone: a model on other data, another resolution or backbone is to be
        compared with a reference of its own.
        """
        row = self.rows[0]
        settings = {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "image_size": list(self.image_size),
            "source": row.source,
            "status": row.status,
            "params_millions": row.params_millions,
            "counts": row.counts,
            "metrics": {name: task.metric for name, task in self.tasks.items()},
        }
        values = {task: _in_units(value, self.tasks[task]) for task, value in row.values.items()}
        return Reference(self.id + SUFFIX, values, settings)


def published_tables() -> dict[str, PublishedTable]:
    """The tables that ship with the package, by id."""
    folder = files("branchtune") / "references" / "published"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    tables = [_table(json.loads(file.read_text(encoding="utf-8"))) for file in found]
    return {table.id: table for table in tables}


def published_reference(name: str) -> Reference | None:
    """The single-task row of a packaged table, in the units of this package's metrics.

    Args:
        name: `<table>_single_task`, such as `pascal_swin_t_single_task`.

    Returns:
        None where there is no such table.
    """
    table = published_tables().get(name.removesuffix(SUFFIX)) if name.endswith(SUFFIX) else None
    return None if table is None else table.reference()


def _in_units(value: float, task: PublishedMetric) -> float:
    return value / 100 if task.unit == "percent" else value


def _table(content: dict) -> PublishedTable:
    return PublishedTable(
        content["id"],
        content["dataset"],
        content["backbone"],
        tuple(content["image_size"]),
        content["note"],
        {name: PublishedMetric(**metric) for name, metric in content["tasks"].items()},
        tuple(PublishedRow(**row) for row in content["rows"]),
    )
