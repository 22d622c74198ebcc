"""`fit`: decoders -> affinity -> tree -> training -> results -> model, each phase kept and not repeated."""

from __future__ import annotations

import gc
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from branchtune.affinity import Affinity, measure_affinity
from branchtune.atomic import write_bytes
from branchtune.decoder_fit import fit_decoders
from branchtune.errors import UserError
from branchtune.evaluation.evaluate import evaluate
from branchtune.model import MultiTaskModel
from branchtune.planning import describe_plan
from branchtune.progress import Advance, Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.lock import locked
from branchtune.run.manifest import manifest
from branchtune.run.results import Results, measure_cost
from branchtune.run.workbench import PLANNED, Workbench
from branchtune.settings import Settings
from branchtune.training.train import Training, train
from branchtune.tree import TaskTree

DECODERS, AFFINITY = "decoders.safetensors", "affinity.json"


def fit(settings: Settings, reporter: Reporter, reuse: Path | None = None) -> Results:
    """Run or continue a run to its end.

    Args:
        settings: the configuration.
        reporter: for messages and progress.
        reuse: another run of the same data, backbone and seed, and of these tasks or more, whose fitted decoders (and
            affinity, for a planned tree of the same tasks) may be reused.

    Raises:
        UserError: anything that the configuration or the data get wrong. A mistake in the configuration shows before
            anything is written; after a later one the run directory stays usable.
    """
    if settings.config.trainer.get("fast_dev_run"):
        return _try_out(settings, reporter)
    run = RunDirectory(settings)
    if run.has("results.json"):
        reporter.say(f"{run.path} is finished: these are its results (choose another --name for a new run)")
        return Results.load(run.file("results.json"))
    try:
        return _Fit(settings, run, reporter).run_all(reuse)
    finally:
        gc.collect()  # model, trainer and data refer to each other: gigabytes that the next run would add to


def measure(settings: Settings, reporter: Reporter) -> Affinity:
    """The first two phases of `fit`: fitted decoders and affinity, kept in the run directory."""
    if settings.config.start_from is not None:
        raise UserError("a run that starts from another has its tree from there, which no affinity changes: use fit")
    phases = _Fit(settings, RunDirectory(settings), reporter)
    with phases.started(plans=False):
        return phases.affinity()


def _try_out(settings: Settings, reporter: Reporter) -> Results:
    """`--trainer.fast_dev_run`: every phase with a step or two, in a directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        quick = settings.but(output=folder)
        quick.config.decoder_fit.steps = min(1, quick.config.decoder_fit.steps)
        quick.config.affinity.samples = 2 * quick.config.affinity.batch_size
        return _Fit(quick, RunDirectory(quick), reporter).run_all(None)


class _Steps:
    """Turns "done of total" into single steps."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, step: str, done: int, total: int) -> None:
        while self.done < done:
            self.done += 1
            self.advance()


class _Fit:
    """The phases of one run, in their order."""

    def __init__(self, settings: Settings, run: RunDirectory, reporter: Reporter) -> None:
        self.config, self.run, self.reporter = settings.config, run, reporter
        self.bench = Workbench(self.config, reporter)
        if self.bench.start is not None:
            self.bench.start.check_same(settings)

    def run_all(self, reuse: Path | None) -> Results:
        with self.started(plans=True):
            return self._run_phases(reuse)

    def _run_phases(self, reuse: Path | None) -> Results:
        if reuse is not None:
            self._take_over(reuse)
        start = self.bench.start
        tree = self.tree() if self.config.method in PLANNED or start else None
        self.bench.seed("train")
        model = self.bench.build(tree)
        self.run.write("manifest.json", manifest(self.bench, model))
        if start is not None and start.new is None:
            return self.finish(model, Training(0.0, None))
        if start is not None:
            trained, own = sum(model.count_parameters(trained_only=True).values()), model.count_parameters()
            names = ", ".join(model.train_tasks)
            self.reporter.say(f"training {names}: {trained:,} of {sum(own.values()) - own['frozen']:,} parameters")
        self._load_decoders(model)
        reference = self.bench.reference
        training = train(
            model,
            self.config,
            self.bench.train_batches(),
            self.bench.val_batches(),
            self.run.path,
            reference.metrics if reference else None,
            self.bench.device,
            self.reporter,
        )
        return self.finish(model, training)

    def _take_over(self, other: Path) -> None:
        """Decoders and affinity of another run; see `fit`."""
        if (other / DECODERS).exists() and not self.run.has(DECODERS):
            fitted = load_file(other / DECODERS)
            own = {key: value for key, value in fitted.items() if key.partition(".")[0] in self.config.tasks}
            write_bytes(self.run.file(DECODERS), to_bytes(own))
        if self.bench.measures and (other / AFFINITY).exists() and not self.run.has(AFFINITY):
            write_bytes(self.run.file(AFFINITY), (other / AFFINITY).read_bytes())

    @contextmanager
    def started(self, plans: bool) -> Iterator[None]:
        """Check everything, then begin or continue the run directory, which is ours until the block ends."""
        self.bench.check(plans)
        content = manifest(self.bench)
        with locked(self.run.path):
            if self.run.has("manifest.json"):
                before = self.run.read("manifest.json")
                _check_same_weights(before, content)
                _check_same_data(before, content)
                _check_same_start(before, content)
            self.run.create()
            self.run.write("manifest.json", content)
            yield

    def decoders(self) -> dict[str, torch.Tensor]:
        """Decoders fitted on what is frozen at first."""
        path = self.run.file(DECODERS)
        if not path.exists():
            wanted = self.config.decoder_fit
            self.bench.seed("decoders")
            model = self._model_of_decoders().to(self.bench.device)
            batches = self.bench.endless_batches()
            with self.reporter.track("fit decoders", wanted.steps) as advance:
                fit_decoders(model, batches, wanted.steps, wanted.lr, on_step=lambda *_: advance(), kind=wanted.kind)
            write_bytes(path, to_bytes(model.decoders.state_dict()))
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it, the run makes it again") from error

    def _model_of_decoders(self) -> MultiTaskModel:
        """The frozen backbone with a decoder per task, or a finished run's model, of which the new decoder trains."""
        if self.bench.start is not None:
            return self.bench.start.model(self.bench.backbone, train="new")
        tree = TaskTree.shared(self.bench.names, self.bench.depth)
        return MultiTaskModel(
            self.bench.backbone, self.bench.tasks, tree, None, self.config.decoder, spec=self.bench.spec
        )

    def _load_decoders(self, model: MultiTaskModel) -> None:
        try:
            model.decoders.load_state_dict(self.decoders())
        except RuntimeError as error:
            path = self.run.file(DECODERS)
            raise UserError(f"{path} holds decoders of another model: delete it, the run makes it again") from error

    def affinity(self) -> Affinity:
        """Which tasks pull the shared adapters in the same direction."""
        if not self.run.has(AFFINITY):
            self.bench.seed("affinity")
            wanted = self.config.affinity
            batches = self.bench.affinity_batches()
            decoders = self.decoders()
            with self.reporter.track("measure affinity", wanted.samples) as advance:
                affinity = measure_affinity(
                    self.bench.backbone,
                    self.bench.tasks,
                    batches,
                    adapter=self.config.adapter,
                    decoder=self.config.decoder,
                    decoders=decoders,
                    normalize=wanted.normalize,
                    source=wanted.source,
                    samples=wanted.samples,
                    spec=self.bench.spec,
                    seed=self.config.seed,
                    progress=_Steps(advance),
                )
            affinity.save(self.run.file(AFFINITY))
        affinity = Affinity.load(self.run.file(AFFINITY))
        self.reporter.say(str(affinity))
        epochs = self.config.trainer.get("max_epochs") or 0
        if epochs > 0:
            share = affinity.cost.share(epochs * len(self.bench.train_set))
            self.reporter.say(f"measuring it took {share:.1%} of the passes of the training")
        return affinity

    def tree(self) -> TaskTree:
        """The planned tree, or the one written by hand."""
        path = self.run.file("tree.json")
        if not path.exists():
            self.run.write("tree.json", self.bench.plan(self.affinity() if self.bench.measures else None).to_json())
        try:
            tree = TaskTree.from_json(self.run.read("tree.json"))
        except UserError as error:
            raise UserError(f"{path}: {error}; delete it, the run makes it again") from error
        self.reporter.say(describe_plan(tree, self.bench.spec, self.bench.adapter(tree)))
        return tree

    def finish(self, model: MultiTaskModel, training: Training) -> Results:
        """Evaluate the trained model, save it, and write the results, which mark the run as finished."""
        batches = self.bench.test_batches()
        model.to(self.bench.device).eval()
        limit = 1 if self.config.trainer.get("fast_dev_run") else len(batches)
        with self.reporter.track("evaluate", limit) as advance:
            metrics = evaluate(model, itertools.islice(batches, limit), advance)
        model.save_pretrained(self.run.file("model"), metrics=metrics)
        results = Results.of(
            self.config, model, metrics, self.bench.reference, training, measure_cost(model, self.config)
        )
        results.save(self.run.file("results.json"))
        return results


def _check_same_weights(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue on another content of the backbone's weight file."""
    old, new = (content.get("backbone") or {} for content in (before, now))
    key = "checkpoint_sha256"
    if old.get(key) != new.get(key):
        raise UserError(
            f"the weights in {new.get('checkpoint_file')} are not those that this run began with (SHA-256 "
            f"{str(old.get(key))[:12]}, now {str(new.get(key))[:12]}): restore the file or choose another --name"
        )


def _check_same_start(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue from another model."""
    old, new = ((content.get("start_from") or {}).get("hashes") for content in (before, now))
    if old != new:
        raise UserError(
            f"the model of {now['start_from']['run']} is not the one that this run began with: restore it or choose "
            "another --name"
        )


def _check_same_data(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue on another number of samples: their order, and with it the run, would be another one."""
    for split, new in now["data"].items():
        old = (before.get("data") or {}).get(split, new)
        if old["samples"] != new["samples"]:
            raise UserError(
                f"split {split!r} has {new['samples']} samples, but this run began with {old['samples']}: restore the "
                "data or choose another --name"
            )
