"""`fit`: decoders -> affinity -> tree -> training -> results -> model, each phase kept and not repeated."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from branchtune.affinity import Affinity, measure_affinity
from branchtune.atomic import write_bytes
from branchtune.decoder_fit import fit_decoders
from branchtune.errors import UserError
from branchtune.evaluation.evaluate import evaluate
from branchtune.model import MultiTaskModel
from branchtune.planning import describe_plan, plan
from branchtune.progress import Advance, Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.manifest import manifest
from branchtune.run.results import Results, measure_cost
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.training.train import train
from branchtune.tree import TaskTree


def fit(settings: Settings, reporter: Reporter, decoders_from: Path | None = None) -> Results:
    """Run or continue a run to its end; its directory holds everything that `DESIGN` lists.

    Args:
        settings: the configuration.
        decoders_from: another run of the same tasks, data, backbone and seed whose fitted decoders may be reused.

    Raises:
        UserError: anything that the configuration or the data get wrong; the run directory stays usable.
    """
    if settings.config.trainer.get("fast_dev_run"):
        return _try_out(settings, reporter)
    run = RunDirectory.open(settings)
    if run.has("results.json"):
        reporter.say(f"{run.path} is finished: these are its results (choose another --name for a new run)")
        return Results.load(run.file("results.json"))
    return _Fit(settings, run, reporter).run_all(decoders_from)


def measure(settings: Settings, reporter: Reporter) -> Affinity:
    """The first two phases of `fit`: fitted decoders and affinity, kept in the run directory."""
    return _Fit(settings, RunDirectory.open(settings), reporter).affinity()


def _try_out(settings: Settings, reporter: Reporter) -> Results:
    """`--trainer.fast_dev_run`: every phase with a step or two, in a directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        quick = settings.but(output=folder)
        quick.config.decoder_fit.steps = min(1, quick.config.decoder_fit.steps)
        quick.config.affinity.samples = 2 * quick.config.affinity.batch_size
        return _Fit(quick, RunDirectory.open(quick), reporter).run_all(None)


class _Steps:
    """Turns "done of total" into single steps."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, step: str, done: int, total: int) -> None:
        while self.done < done:
            self.done += 1
            self.advance()


class _Fit:
    def __init__(self, settings: Settings, run: RunDirectory, reporter: Reporter) -> None:
        self.config, self.run, self.reporter = settings.config, run, reporter
        self.bench = Workbench(self.config, reporter)

    def run_all(self, decoders_from: Path | None) -> Results:
        reference = self.bench.reference
        self.run.write("manifest.json", manifest(self.bench))
        if decoders_from is not None and not self.run.has("decoders.safetensors"):
            write_bytes(self.run.file("decoders.safetensors"), (decoders_from / "decoders.safetensors").read_bytes())
        tree = self.tree() if self.config.method == "branched" else None
        self.bench.seed("train")
        model = self.bench.build(tree)
        model.decoders.load_state_dict(self.decoders())
        started = time.monotonic()
        train(
            model,
            self.config,
            self.bench.train_batches(),
            self.bench.val_batches(),
            self.run.path,
            reference.metrics if reference else None,
            self.reporter,
        )
        return self.finish(model, time.monotonic() - started)

    def decoders(self) -> dict[str, torch.Tensor]:
        """Decoders fitted on the frozen backbone."""
        name = "decoders.safetensors"
        if not self.run.has(name):
            steps = self.config.decoder_fit.steps
            self.bench.seed("decoders")
            names = [task.name for task in self.bench.tasks]
            model = MultiTaskModel(
                self.bench.backbone,
                self.bench.tasks,
                TaskTree.shared(names, len(self.bench.spec.levels)),
                None,
                self.config.decoder,
                spec=self.bench.spec,
            ).to(self.bench.device)
            batches = self.bench.endless_batches()
            with self.reporter.track("fit decoders", steps) as advance:
                fit_decoders(model, batches, steps, self.config.decoder_fit.lr, on_step=lambda *_: advance())
            write_bytes(self.run.file(name), to_bytes(model.decoders.state_dict()))
        return load_file(self.run.file(name))

    def affinity(self) -> Affinity:
        """Which tasks pull the shared adapters in the same direction."""
        if not self.run.has("affinity.json"):
            self.bench.seed("affinity")
            wanted = self.config.affinity
            batches = self.bench.affinity_batches()
            with self.reporter.track("measure affinity", wanted.samples) as advance:
                affinity = measure_affinity(
                    self.bench.backbone,
                    self.bench.tasks,
                    batches,
                    adapter=self.config.adapter,
                    decoder=self.config.decoder,
                    decoders=self.decoders(),
                    normalize=wanted.normalize,
                    source=wanted.source,
                    samples=wanted.samples,
                    spec=self.bench.spec,
                    seed=self.config.seed,
                    progress=_Steps(advance),
                )
            affinity.save(self.run.file("affinity.json"))
        affinity = Affinity.load(self.run.file("affinity.json"))
        self.reporter.say(str(affinity))
        return affinity

    def tree(self) -> TaskTree:
        """The planned tree, or the one written by hand."""
        if not self.run.has("tree.json"):
            wanted = self.config.tree
            if wanted.levels is not None:
                if wanted.groups or wanted.budget or wanted.budget_params:
                    raise UserError("tree.levels is the whole tree: leave groups and budgets out")
                tree = TaskTree(wanted.levels)
            else:
                tree = plan(
                    self.affinity(),
                    adapter=self.config.adapter,
                    groups=wanted.groups,
                    budget=wanted.budget,
                    budget_params=wanted.budget_params,
                )
            self.run.write("tree.json", tree.to_json())
        tree = TaskTree.from_json(self.run.read("tree.json"))
        self.reporter.say(describe_plan(tree, self.bench.spec, self.config.adapter))
        return tree

    def finish(self, model: MultiTaskModel, seconds: float) -> Results:
        batches = self.bench.test_batches()
        model.to(self.bench.device).eval()
        limit = 1 if self.config.trainer.get("fast_dev_run") else len(batches)
        with self.reporter.track("evaluate", limit) as advance:
            metrics = evaluate(model, (batch for batch, _ in zip(batches, range(limit), strict=False)), advance)
        model.save_pretrained(self.run.file("model"))
        results = Results.of(
            self.config, model, metrics, self.bench.reference, seconds, measure_cost(model, self.config)
        )
        results.save(self.run.file("results.json"))
        return results


def evaluate_run(path: Path, reporter: Reporter) -> dict[str, Any]:
    """Metrics of a finished run's model, computed again on the data of its configuration."""
    settings = Settings.load(path / "config.yaml")
    bench = Workbench(settings.config, reporter)
    model = MultiTaskModel.from_pretrained(path / "model", backbone=bench.backbone).to(bench.device)
    batches = bench.test_batches()
    with reporter.track("evaluate", len(batches)) as advance:
        return evaluate(model, batches, advance)
