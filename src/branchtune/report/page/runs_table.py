"""What several runs are, side by side: method, backbone, data."""

from __future__ import annotations

from collections.abc import Sequence

from branchtune.report.page.data_words import data_words, evaluated_on
from branchtune.report.page.run_data import RunData
from branchtune.tables.cells import Cells


def runs_table(runs: Sequence[RunData], titles: Sequence[str]) -> Cells:
    """A column per run, whose title is in `titles`."""
    rows = [
        ["method", *(run.results.method for run in runs)],
        ["tasks", *(str(len(run.tasks)) for run in runs)],
        ["backbone", *(run.model.spec.name for run in runs)],
        ["image size", *(run.image_size for run in runs)],
        ["data", *(data_words(run.config.data.kind, run.images) for run in runs)],
        ["results on", *(evaluated_on(run.images) or "–" for run in runs)],
        ["seed", *(str(run.results.seed) for run in runs)],
        ["reference", *(run.results.reference or "–" for run in runs)],
    ]
    return Cells("", ["", *titles], rows)
