"""Milliseconds per image of every column, measured here and one after the other: weights do not matter for it."""

from __future__ import annotations

import dataclasses

from branchtune.evaluation.references import Reference
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.results import Results, measure_cost
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.tree import TaskTree


class Stopwatch:
    """Times models of one configuration on this machine."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.settings, self.reporter = settings, reporter
        self.bench = Workbench(settings.but(reference=None).config, reporter)

    def results(self, results: Results) -> Results:
        """The same results with the time that its model takes here."""
        bench = Workbench(self.settings.but(method=results.method, reference=None).config, self.reporter)
        model = bench.build(TaskTree.from_json(results.tree))
        return dataclasses.replace(results, ms_per_image=self._time(model))

    def reference(self, reference: Reference) -> Reference:
        """The same reference with the time that its single-task models take here, one after the other."""
        bench = self.bench
        models = (
            MultiTaskModel(bench.backbone, [task], decoder=bench.config.decoder, train_backbone=True, spec=bench.spec)
            for task in bench.tasks
        )
        total = sum(self._time(model) for model in models)
        return dataclasses.replace(reference, settings={**reference.settings, "ms_per_image": total})

    def _time(self, model: MultiTaskModel) -> float:
        return float(measure_cost(model.to(self.bench.device).eval(), self.bench.config)["ms_per_image"])
