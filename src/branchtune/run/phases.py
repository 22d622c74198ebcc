"""The phases of a run: decoders, affinity, tree, training, results, model; each is kept and not repeated."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from branchtune.affinity import Affinity, measure_affinity
from branchtune.atomic import write_bytes
from branchtune.config import PLANNED
from branchtune.decoder_fit import fit_decoders
from branchtune.errors import UserError
from branchtune.evaluation.evaluate import evaluate
from branchtune.model import MultiTaskModel
from branchtune.progress import Advance, Reporter
from branchtune.run.directory import LAST_CHECKPOINT, RunDirectory
from branchtune.run.lock import locked
from branchtune.run.manifest import manifest
from branchtune.run.results import Results, measure_cost
from branchtune.run.say_plan import say_plan
from branchtune.run.team import together
from branchtune.run.unchanged import check_unchanged
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.training.processes import rank_and_count
from branchtune.training.train import Training, train
from branchtune.tree import TaskTree

DECODERS, AFFINITY = "decoders.safetensors", "affinity.json"


class _Steps:
    """Turns "done of total" into single steps."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, step: str, done: int, total: int) -> None:
        while self.done < done:
            self.done += 1
            self.advance()


class Phases:
    """The phases of one run, in their order."""

    def __init__(self, settings: Settings, run: RunDirectory, reporter: Reporter) -> None:
        self.config, self.run, self.reporter = settings.config, run, reporter
        self.bench = Workbench(self.config, reporter)
        if self.bench.start is not None:
            self.bench.start.check_same(settings)

    def run_all(self, reuse: Path | None) -> Results:
        """Run or continue the run to its end; see `fit`."""
        with self.started(plans=True):
            if reuse is not None:
                self._take_over(reuse)
            if self._nothing_new():
                model, training = self._noted(), Training(0.0, None)
            else:
                model, training = self._trained_together()
            return self.finish(model, training)

    def _trained_together(self) -> tuple[MultiTaskModel, Training]:
        """By all processes of the run, of which this is the first; alone again when it returns."""
        with together(self.bench.device) as connect:
            model = self._noted()
            self.decoders()
            connect()  # with the others, which read what was written until here
            self._load_decoders(model)
            return model, self._train(model)

    def _noted(self) -> MultiTaskModel:
        """The model to train, with its numbers in the manifest."""
        model = self._prepared()
        self.run.write("manifest.json", manifest(self.bench, model))
        return model

    def _nothing_new(self) -> bool:
        """Whether the run starts from a finished one and adds no task: nothing trains."""
        return self.bench.start is not None and self.bench.start.new is None

    def assist(self) -> None:
        """The share of a process that is not the first one: it trains, and writes nothing."""
        if self._nothing_new():
            return
        with together(self.bench.device) as connect:
            connect()
            model = self._prepared()
            self._load_decoders(model)
            self._train(model)

    def _prepared(self) -> MultiTaskModel:
        """The model to train, with its tree."""
        start = self.bench.start
        tree = self.tree() if self.config.method in PLANNED or start else None
        self.bench.seed("train")
        return self.bench.build(tree)

    def _train(self, model: MultiTaskModel) -> Training:
        start, reference, share = self.bench.start, self.bench.reference, rank_and_count()
        if start is not None:
            trained, own = sum(model.count_parameters(trained_only=True).values()), model.count_parameters()
            names = ", ".join(model.train_tasks)
            self.reporter.say(f"training {names}: {trained:,} of {sum(own.values()) - own['frozen']:,} parameters")
        return train(
            model,
            self.config,
            self.bench.train_batches(share),
            self.bench.val_batches(share),
            self.run.path,
            reference.metrics if reference else None,
            self.bench.device,
            self.reporter,
        )

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
                trained = self.run.has(LAST_CHECKPOINT)
                if trained and not plans:  # only looks at what is there
                    content["processes"] = before.get("processes", 1)
                check_unchanged(before, content, trained)
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
            self.reporter.say(f"the measurement took {share:.1%} as many passes as the training")
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
        adapter, reporter = self.bench.adapter(tree), self.reporter
        wanted, counts = self.config.tree, [*tree.group_counts]
        plans = self.config.method == "branched" and self.bench.start is None
        if plans and wanted.keep_agreeing and wanted.groups not in (None, counts):
            reporter.say(f"tasks that agree stay together: groups {counts} instead of {wanted.groups}")
        known = self.bench.measures and self.run.has(AFFINITY)
        say_plan(tree, Affinity.load(self.run.file(AFFINITY)) if known else self.bench.spec, adapter, reporter)
        return tree

    def finish(self, model: MultiTaskModel, training: Training) -> Results:
        """Evaluate the trained model, save it, and write the results, which mark the run as finished."""
        batches = self.bench.test_batches()
        model.to(self.bench.device).eval()
        limit = 1 if self.config.trainer.get("fast_dev_run") else len(batches)
        with self.reporter.track("evaluate", limit) as advance:
            metrics = evaluate(model, itertools.islice(batches, limit), advance)
        folder = self.run.file("model")
        model.save_pretrained(folder, name=folder.as_posix(), metrics=metrics)
        results = Results.of(
            self.config, model, metrics, self.bench.reference, training, measure_cost(model, self.config)
        )
        results.save(self.run.file("results.json"))
        return results
