"""Tune, train and collect every method with every seed; what is finished is not repeated."""

from __future__ import annotations

import csv
import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from branchtune.comparison.jobs import Job, train_all
from branchtune.comparison.methods import CONTROLS, SINGLE, TITLES, with_rate
from branchtune.comparison.result import Comparison, Tuning
from branchtune.comparison.trials import divergence, named, record_divergence
from branchtune.errors import DivergedError, UserError, unknown
from branchtune.evaluation.delta_m import delta_m
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.run.fit import fit
from branchtune.run.reference import single_task, train_reference
from branchtune.run.results import Results
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings


class Comparer:
    """Runs the trainings of one comparison in `output/name`, one directory for each method, rate and seed.

    Args:
        settings: the configuration that all methods share.
        methods: of `TITLES`; the single-task models are always trained, as delta_m divides by them.
        seeds: at least one, distinct.
        grid: multiples of each method's own learning rate that are tried with the first seed; the one with the best
            metrics on the validation split after the last epoch is used for all seeds; one that diverges loses. Empty:
            the configuration's.
            Random and anti-affinity trees take the rate of the planned tree where that is among the methods.
        reporter: for messages and progress.
        rates: multiples that were tuned before, by method; these methods are not tuned again. Without a grid, of all;
            beside one, tuned with the same grid.
        workers: runs that are trained at a time, each in a process of its own with its share of the cores.

    Raises:
        UserError: an unknown method, a folder that holds a run, no seed, seeds or rates given twice, a rate that is not
            positive, no worker, some methods tuned and others not, or with another grid.
    """

    def __init__(
        self,
        settings: Settings,
        methods: Sequence[str],
        seeds: Sequence[int],
        grid: Sequence[float],
        reporter: Reporter,
        rates: Mapping[str, Tuning] | None = None,
        workers: int = 1,
    ) -> None:
        for method in methods:
            if method not in TITLES:
                raise unknown("method", method, TITLES)
        for name, values in (("methods", methods), ("seeds", seeds), ("grid", grid)):
            if len(set(values)) < len(values):
                raise UserError(f"{name} {list(values)}: one is given twice")
        wanted = [method for method in methods if method != SINGLE]
        if not seeds or not wanted:
            raise UserError("compare needs at least one seed and one method beside the single-task models")
        if settings.config.start_from is not None:
            raise UserError("start_from continues one model, which other methods cannot share: compare without it")
        if not all(0 < factor < math.inf for factor in grid):
            raise UserError(f"grid {list(grid)}: give positive multiples of the learning rate, such as [0.3, 1, 3]")
        if workers < 1:
            raise UserError(f"workers={workers}: give at least 1")
        if workers > 1 and settings.config.trainer.get("fast_dev_run"):
            raise UserError("fast_dev_run keeps nothing that another process could collect: set workers to 1")
        self.rates, self.workers = dict(rates or {}), workers
        # Planned trees first: their fitted decoders and measured affinity serve the other methods of the same seed.
        self.methods = sorted(wanted, key=lambda method: method != "branched")
        untuned = [method for method in (SINGLE, *wanted) if self._tuned_as(method) not in self.rates]
        if rates and not grid and untuned:
            raise UserError(f"rates has none for {untuned[0]!r}, which would be untuned beside the others: give a grid")
        if grid:
            _check_same_grid(self.rates, grid)
        self.settings, self.seeds, self.grid, self.reporter = settings, list(seeds), list(grid), reporter
        self.name = settings.config.name
        self.folder = Path(settings.config.output) / self.name
        if (self.folder / "config.yaml").exists():
            raise UserError(
                f"{self.folder} holds a run, whose report.html a comparison would replace: choose another --name"
            )

    def run(self, command: str) -> Comparison:
        """Train what is missing.

        Args:
            command: that made the comparison, to be stored with it.

        Raises:
            UserError: as `fit`; no rate of the grid trains a method; one diverges with a seed at the rate that it has.
        """
        everything = (*self.methods, SINGLE)
        first = self.seeds[:1]
        self._train([(m, factor, first) for m in everything for factor in self._grid(m)], trial=True)
        tuned = {method: self._tune(method) for method in dict.fromkeys(map(self._tuned_as, everything))}
        tuning = {m: tuned[m] if m in tuned else replace(tuned[self._tuned_as(m)], scores={}) for m in everything}
        self._train([(method, tuning[method].factor, self.seeds) for method in everything])
        # Before the single-task models, which take over the decoders that these were fitted with.
        runs = {method: [self._fit(method, tuning[method].factor, s) for s in self.seeds] for method in self.methods}
        reference = self._single(tuning[SINGLE].factor, self.seeds)
        order = [method for method in TITLES if method in self.methods]
        return Comparison(
            self.name,
            command,
            self.settings.but(output="runs", reference=None).text(),
            self.seeds,
            {method: tuning[method] for method in (SINGLE, *order)},
            reference,
            {method: [results.compared_with(reference) for results in runs[method]] for method in order},
            tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if self.workers > 1:
            yield f"Training was timed with up to {self.workers} runs at a time."
        if self.grid and Workbench(self.settings.config, self.reporter).test_split == "val":
            yield (
                "The rates were chosen on the val split, which these tables are computed on too, as the data has no "
                "test split: none of these images is unseen."
            )

    def _grid(self, method: str) -> Sequence[float]:
        """Multiples of the rate that are tried: none where the method's rate is given, or another method's."""
        return () if method in self.rates or self._tuned_as(method) != method else self.grid

    def _tuned_as(self, method: str) -> str:
        """The method whose rate this one takes: its own, or for a control that of the planned tree."""
        planned = CONTROLS.get(method, method)
        return planned if method not in self.rates and (planned in self.methods or planned in self.rates) else method

    def _train(self, wanted: Sequence[tuple[str, float, Sequence[int]]], trial: bool = False) -> None:
        """Train methods at multiples of their rates with these seeds, where several processes are to do it."""
        if self.workers == 1:
            return
        jobs: list[Job] = []
        first: dict[int, Path] = {}
        for seed in self.seeds:
            for method, factor in ((m, f) for m, f, seeds in wanted if seed in seeds and m != SINGLE):
                job = Job(self._settings(method, factor, seed), trial=trial)
                leader = first.setdefault(seed, self._reusable(seed) or job.path)
                jobs.append(job if leader == job.path else replace(job, reuse=leader))
        for task in self.settings.config.tasks:
            for factor, seeds in ((f, seeds) for m, f, seeds in wanted if m == SINGLE):
                single = self._single_settings(factor)
                jobs += [Job(single_task(single, task, seed), first.get(seed), trial) for seed in seeds]
        # What others wait for comes first, and the short single-task runs fill the end.
        ordered = sorted(jobs, key=lambda job: job.path not in first.values())
        train_all(ordered, self.workers, self.reporter)

    def _tune(self, method: str) -> Tuning:
        if not self._grid(method):
            return self.rates.get(method, Tuning(1.0, {}))
        trials = {f"{factor:g}": self._trial(method, factor, self.seeds[0]) for factor in self.grid}
        learnt = {factor: heads for factor, heads in trials.items() if not isinstance(heads, str)}
        base = next((heads for heads in learnt.values() if min(heads.values()) > 0), None)
        if base is None:
            reason = next((reason for reason in trials.values() if isinstance(reason, str)), "a metric stays 0")
            raise UserError(f"no rate of the grid {list(self.grid)} trains {TITLES[method]}: {reason}")
        scores = {f: delta_m(learnt[f], base, self._directions()) if f in learnt else None for f in trials}
        best = max(self.grid, key=lambda factor: _or_last(scores[f"{factor:g}"]))
        said = {factor: "diverged" if score is None else f"{score:+.2f}" for factor, score in scores.items()}
        self.reporter.say(f"{method}: learning rate x {best:g} of {said}")
        return Tuning(best, scores)

    def _trial(self, method: str, factor: float, seed: int) -> dict[str, float] | str:
        """The headline metrics on the validation split after the last epoch; or why the rate is out of the question."""
        tasks = self._directions()
        if method == SINGLE:
            folders = {task: self._path(f"single-x{factor:g}/single-{task}-{seed}") for task in tasks}
        else:
            folders = dict.fromkeys(tasks, self._path(_run_name(method, factor, seed)))
        reason = next(filter(None, map(divergence, folders.values())), None)
        if reason is not None:
            return reason
        try:
            if method == SINGLE:
                self._single(factor, [seed])
            else:
                self._fit(method, factor, seed)
        except DivergedError as error:
            reason = str(error)
            ended = next(folder for folder in folders.values() if not (folder / "results.json").exists())
            record_divergence(ended, error)
        if reason is not None:
            gc.collect()  # not before: the error holds the frames of the run, and these its model
            self.reporter.say(f"{method}, learning rate x {factor:g}, diverged: {reason}")
            return reason
        heads = {task: self._last_validation(folder, task) for task, folder in folders.items()}
        lost = [task for task, value in heads.items() if not math.isfinite(value)]
        return f"task {lost[0]!r} has no finite metric on the validation split" if lost else heads

    def _settings(self, method: str, factor: float, seed: int) -> Settings:
        name = f"{self.name}/{_run_name(method, factor, seed)}"
        return with_rate(self.settings, method, factor).but(method=method, seed=seed, reference=None, name=name)

    def _fit(self, method: str, factor: float, seed: int) -> Results:
        with named(_run_name(method, factor, seed)):
            return fit(self._settings(method, factor, seed), self.reporter, self._reusable(seed))

    def _reusable(self, seed: int) -> Path | None:
        """A finished run of this seed, of a planned tree where there is one: decoders and affinity are the same."""
        found = sorted(
            self.folder.glob(f"*-{seed}/results.json"), key=lambda p: not p.parent.name.startswith("branched")
        )
        return found[0].parent if found else None

    def _single(self, factor: float, seeds: Sequence[int]) -> Reference:
        settings, title = self._single_settings(factor), f"{self.name}, single-task"
        with named(f"single-x{factor:g}"):
            return train_reference(settings, seeds, title, self.reporter, self._reusable)

    def _single_settings(self, factor: float) -> Settings:
        return with_rate(self.settings, SINGLE, factor).but(name=f"{self.name}/single-x{factor:g}")

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _directions(self) -> dict[str, bool]:
        return {name: task.higher_is_better for name, task in self.settings.config.tasks.items()}

    def _last_validation(self, folder: Path, task: str) -> float:
        """The headline metric of `task` after the last epoch."""
        headline = self.settings.config.tasks[task].headline
        try:
            with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
                values = [row[headline] for row in csv.DictReader(file) if row["task"] == task]
            return float(values[-1])
        except (OSError, LookupError, ValueError) as error:
            raise UserError(f"{folder}/metrics.csv has no {headline} of {task!r}: tuning needs validation") from error


def _check_same_grid(rates: Mapping[str, Tuning], grid: Sequence[float]) -> None:
    """Refuse to compare methods of which some had more rates to choose from."""
    tried = {f"{factor:g}" for factor in grid}
    for method, tuning in rates.items():
        if method not in CONTROLS and set(tuning.scores) != tried:
            before = ", ".join(tuning.scores) or "none"
            raise UserError(
                f"rates: {method!r} was tuned with the multiples {before}, the grid has {', '.join(sorted(tried))}: "
                "methods are compared with equal tuning"
            )


def _run_name(method: str, factor: float, seed: int) -> str:
    return f"{method}-x{factor:g}-{seed}"


def _or_last(score: float | None) -> float:
    """A rate that diverged comes after all others."""
    return -math.inf if score is None else score
