"""What every phase of a run works with: backbone, tasks, data, reference, device."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from branchtune.adapters.adapter import Adapter
from branchtune.affinity import Affinity
from branchtune.backbone.source import create_backbone
from branchtune.backbone.spec import BackboneSpec
from branchtune.backbone.statistics import image_statistics
from branchtune.backbone.trace import trace_backbone
from branchtune.config import PLANNED, RunConfig
from branchtune.data.problems import Problem, describe_skipped, left_out
from branchtune.data.transforms import Transform
from branchtune.errors import UserError
from branchtune.evaluation.delta_m import relative_gains
from branchtune.evaluation.references import Reference
from branchtune.model import MultiTaskModel
from branchtune.planning import anti_affinity_tree, plan, random_tree
from branchtune.planning.ranks import with_ranks_within
from branchtune.progress import Reporter
from branchtune.run.adapter_limit import adapter_limit
from branchtune.run.loaders import ALL, SampleSource, check_sizes, eval_loader, make_dataset, prepare, train_loader
from branchtune.run.packaged import packaged_reference
from branchtune.run.start import Start
from branchtune.training.device import choose_device
from branchtune.training.processes import rank_and_count
from branchtune.tree import TaskTree

PHASES = ("decoders", "affinity", "train")


class Workbench:
    """Builds what a configuration names, each thing once and on first use."""

    def __init__(self, config: RunConfig, reporter: Reporter) -> None:
        self.config, self.reporter = config, reporter
        self.tasks = list(config.tasks.values())
        self.names = list(config.tasks)
        self._opened: dict[str, SampleSource] = {}

    def seed(self, phase: str) -> None:
        """Start a phase from random numbers of its own, so that skipping a finished phase changes nothing."""
        value = int(np.random.SeedSequence(self.config.seed, spawn_key=(PHASES.index(phase),)).generate_state(1)[0])
        random.seed(value)
        torch.manual_seed(value)

    @cached_property
    def backbone(self) -> nn.Module:
        wanted = self.config.backbone
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.config.seed)
            backbone = create_backbone(
                wanted.name,
                pretrained=wanted.pretrained,
                checkpoint=wanted.checkpoint,
                image_size=self.config.data.image_size,
                **wanted.kwargs,
            )
        return backbone.to(self.device)

    def forget_backbone(self) -> None:
        """Hold it no longer, where a model in low precision takes its place."""
        _ = self.normalisation  # which is read from it
        del self.backbone

    @cached_property
    def start(self) -> Start | None:
        """The finished run that this one starts from."""
        return None if self.config.start_from is None else Start(self.config)

    @cached_property
    def spec(self) -> BackboneSpec:
        levels = self.config.backbone.levels
        return trace_backbone(self.backbone, levels, self.config.data.image_size)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.spec.levels)

    @cached_property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and standard deviation that the backbone was trained with."""
        return image_statistics(self.backbone)

    def check(self, plans: bool, processes: int | None = None) -> None:
        """Build everything once, with a tree planned from nothing, so that no mistake waits for a long step to end.

        Args:
            plans: whether the run will need a tree.
            processes: that will share the run; default: those that share it now.

        Raises:
            UserError: anything that backbone, data, reference, tree, adapter or trainer get wrong.
        """
        from branchtune.training.trainer import build_trainer  # Lightning, which evaluating and predicting do without

        build_trainer(self.config, choose_device(self.config.trainer), [], Path(self.config.output) / self.config.name)
        _ = self.reference
        skips = self.config.data.on_bad == "skip" and self.config.data.kind != "scenes"
        # Which samples are left belongs to the manifest that begins a run.
        opened = self.dataset if skips else self._open
        sizes = {split: len(opened(split)) for split in ("train", "val", self.test_split)}
        check_sizes(sizes, not plans or self.measures, rank_and_count()[1] if processes is None else processes)
        tree = None
        if self.config.method in PLANNED and self.start is None:
            # Nobody agrees: of all trees that may come, the one with the most groups is checked.
            opposed = Affinity.from_matrix(self.names, 2 * np.eye(len(self.names)) - 1, self.spec)
            tree = self.plan(opposed) if plans else TaskTree.shared(self.names, self.depth)
        self.build(tree)

    @property
    def image_transform(self) -> Transform:
        """What evaluation does to an image, for one that has no labels."""
        data = self.config.data
        return Transform({}, data.image_size, *self.normalisation, interpolation=data.interpolation)

    @property
    def measures(self) -> bool:
        """Whether the run's tree needs a measured affinity."""
        by_hand = self.config.tree.levels is not None and self.config.method != "anti"
        return self.config.method in PLANNED and not by_hand and self.start is None

    def plan(self, affinity: Affinity | None) -> TaskTree:
        """The tree that the configuration asks for: written by hand, planned from `affinity`, or a control."""
        if self.start is not None:
            return self.start.tree
        planned = self._planned(affinity, self.config.tree.keep_agreeing)
        if self.config.method == "branched":
            return planned
        # A control of a plan without forks would be the same tree: it forks as often as the configuration asks.
        asked = self._planned(affinity)
        counts = (asked if planned.group_counts[-1] == 1 else planned).group_counts
        if self.config.method == "anti" and affinity is not None:
            return anti_affinity_tree(affinity, counts)
        return random_tree(self.names, counts, self.config.seed, but=[planned, asked])

    def _planned(self, affinity: Affinity | None, keep_agreeing: bool = False) -> TaskTree:
        wanted = self.config.tree
        if wanted.levels is not None:
            return TaskTree(wanted.levels)
        if affinity is None or (wanted.groups, wanted.budget, wanted.budget_params) == (None, None, None):
            raise UserError("no tree is chosen: set tree.groups, tree.budget, tree.budget_params or tree.levels")
        return plan(
            affinity,
            adapter=self.config.family,
            groups=wanted.groups,
            budget=wanted.budget,
            budget_params=wanted.budget_params,
            adapter_params=self.adapter_limit,
            keep_agreeing=keep_agreeing,
        )

    def _open(self, split: str) -> SampleSource:
        if split not in self._opened:
            self._opened[split] = make_dataset(
                self.config.data, split, self.tasks, *self.normalisation, self.config.seed
            )
        return self._opened[split]

    def dataset(self, split: str) -> SampleSource:
        """The samples of a split, rendered where they are scenes and without the bad ones where those are skipped."""
        dataset = self._open(split)
        if getattr(dataset, "missing", 0):
            prepare(dataset, self.reporter, f"prepare {split} images")
            skipped = self.skipped().get(split)
            if skipped:
                self.reporter.say(f"{split}: {describe_skipped(skipped)}")
        return dataset

    def skipped(self) -> dict[str, list[Problem]]:
        """Why samples were left out, by split; only splits that were opened and lack some."""
        found = {split: getattr(dataset, "skipped", []) for split, dataset in self._opened.items()}
        return {split: problems for split, problems in found.items() if problems}

    def data_report(self) -> dict[str, Any]:
        """For the manifest: by split, how many samples are used, how many are skipped, and why (the first hundred)."""
        skipped = self.skipped()
        return {
            split: {
                "samples": len(dataset),
                "skipped": len(left_out(skipped.get(split, []))),
                "problems": [problem.text for problem in skipped.get(split, [])][:100],
            }
            for split, dataset in self._opened.items()
        }

    @cached_property
    def train_set(self) -> SampleSource:
        return self.dataset("train")

    @cached_property
    def val_set(self) -> SampleSource:
        return self.dataset("val")

    def train_batches(self, share: tuple[int, int] = ALL) -> DataLoader[Any]:
        return train_loader(self.train_set, self.config.data, self.tasks, self.config.seed, share)

    def val_batches(self, share: tuple[int, int] = ALL) -> DataLoader[Any]:
        return eval_loader(self.val_set, self.config.data, self.tasks, share)

    @property
    def test_split(self) -> str:
        """What results are computed on: the test split where the data has one, else the validation split."""
        if self.config.data.kind == "scenes":
            return "test"
        return "test" if self._open("val").source.has_split("test") else "val"  # type: ignore[attr-defined]

    def test_batches(self) -> DataLoader[Any]:
        dataset = self.val_set if self.test_split == "val" else self.dataset("test")
        return eval_loader(dataset, self.config.data, self.tasks)

    def endless_batches(self) -> Iterator[Any]:
        """Training batches, epoch after epoch."""
        loader = self.train_batches()
        epoch = 0
        while True:
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            yield from loader
            epoch += 1

    def affinity_batches(self) -> DataLoader[Any]:
        """Training batches of `affinity.batch_size` images, in an order of their own."""
        data = dataclasses.replace(self.config.data, batch_size=self.config.affinity.batch_size)
        return train_loader(self.train_set, data, self.tasks, self.config.seed + 1)

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.config.trainer)

    @cached_property
    def reference(self) -> Reference | None:
        """The single-task results that delta_m divides by.

        Raises:
            UserError: it misses a task, or a value that nothing can be divided by.
        """
        if self.config.reference is None:
            return None
        packaged = packaged_reference(self.config.reference)
        reference = packaged or Reference.load(self.config.reference)
        missing = [task.name for task in self.tasks if task.name not in reference.metrics]
        if missing:
            raise UserError(
                f"reference {reference.id!r} has no value for task {missing[0]!r}: delete tasks.{missing[0]} from the "
                "configuration, or set --reference null"
            )
        relative_gains(dict.fromkeys(self.names, 1.0), reference.metrics, dict.fromkeys(self.names, True))
        return reference

    def build(self, tree: TaskTree | None) -> MultiTaskModel:
        """The model to train, by method or from a finished run; `tree` is the planned one where the method needs it."""
        if self.start is not None:
            return self.start.model(self.backbone)
        config = self.config
        adapted = config.method in (*PLANNED, "shared", "separate", "comb")
        if config.method == "separate":
            tree = TaskTree.separate(self.names, self.depth)
        elif config.method not in PLANNED or tree is None:
            tree = TaskTree.shared(self.names, self.depth)
        return MultiTaskModel(
            self.backbone,
            self.tasks,
            tree,
            self.adapter(tree) if adapted else None,
            config.decoder,
            extras=config.extras if adapted else (),
            train_backbone=config.method == "full",
            checkpoint_levels=config.checkpoint_levels,
            spec=self.spec,
        )

    def adapter(self, tree: TaskTree) -> Adapter | None:
        """What a node of `tree` trains: the configuration's adapter, of the method's family and the ranks that fit."""
        if self.start is not None:
            return self.start.saved.adapter
        config = self.config
        adapter = config.family
        if self.adapter_limit is None:
            return adapter
        budget = config.tree.budget if config.method in PLANNED else None
        return with_ranks_within(adapter, self.spec, tree, self.adapter_limit, budget or math.inf)

    @cached_property
    def adapter_limit(self) -> int | None:
        """What `adapter_share` leaves to the adapters beside the extras; None where it is not set."""
        return adapter_limit(self.config, self.backbone, self.spec)
