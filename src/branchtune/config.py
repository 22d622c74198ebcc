"""The configuration of a run: the dataclasses behind every YAML file and command-line key (no torch here)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any, Literal

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.bottleneck import Bottleneck
from branchtune.adapters.comb import Comb
from branchtune.adapters.lora import LoRA
from branchtune.data.augmentation import Augmentation, Interpolation
from branchtune.decoders.decoder import Decoder
from branchtune.decoders.hrnet import HRNetDecoder
from branchtune.decoders.light import LightDecoder
from branchtune.errors import UserError
from branchtune.tasks.task import Task
from branchtune.training.adatask import AdaTask
from branchtune.training.schedule import Schedule
from branchtune.training.task_optimizer import TaskOptimizer
from branchtune.training.weighted_sum import WeightedSum

# A class that is imported may be named without its module: --adapter=Bottleneck.
FAMILIES = (LoRA, Bottleneck, Comb, LightDecoder, HRNetDecoder, WeightedSum, AdaTask)

Method = Literal["branched", "random", "anti", "shared", "separate", "comb", "decoders", "full"]
PLANNED = ("branched", "random", "anti")  # the methods whose tree `tree` decides


@dataclass
class BackboneConfig:
    """The frozen backbone.

    Args:
        name: a timm model name, or `scenes_swin`, the small Swin whose weights ship with the package.
        pretrained: load timm's weights (from the hub's cache or the network).
        checkpoint: a local weight file to load instead.
        levels: where the tree may fork: `natural`, `after_merging`, or a list of module names (`first:last` for runs).
        kwargs: further arguments of timm.create_model.
    """

    name: str = "scenes_swin"
    pretrained: bool = True
    checkpoint: str | None = None
    levels: str | list[str] = "natural"
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataConfig:
    """Images and labels.

    Args:
        kind: `scenes` (rendered), `nyud` or `pascal` (a folder in the NYUD_MT or PASCAL_MT layout), `folder` (your own
            images and labels) or `huggingface` (a table), both declared in dataset.yaml.
        root: folder of the data set; required, but for scenes, which have none.
        image_size: height and width of the network's input, in pixels.
        train_size: number of training images; required for scenes. Elsewhere a limit (null: all): the first so many
            that can be used; nothing is said about those after them.
        val_size: likewise for validation images.
        test_size: likewise for the images that results are computed on, where the data set has such a split.
        seed: of the scenes.
        batch_size: images per step.
        eval_batch_size: images per evaluation step.
        workers: loader processes; 0 loads in the training process.
        pin_memory: load into page-locked memory, from which a GPU copies faster; no effect without a GPU.
        cache: keep decoded samples in memory, in every loader process.
        interpolation: `linear` resizes images with antialiasing; `cubic` images and normals, as in the MTLoRA protocol.
            Scenes are rendered at `image_size`: with them it is only how images to predict are resized.
        on_bad: `refuse` ends the run at ids listed twice or in two splits, files that are missing, damaged or two of
            one id, and values out of range; `skip` reads everything once before the training, leaves such samples out
            and counts them. Not for scenes.
        augmentation: random changes of training samples; null for none. Not for scenes.
    """

    kind: Literal["scenes", "nyud", "pascal", "folder", "huggingface"] = "scenes"
    root: str | None = None
    image_size: tuple[int, int] = (128, 128)
    train_size: int | None = None
    val_size: int | None = None
    test_size: int | None = None
    seed: int = 0
    batch_size: int = 16
    eval_batch_size: int = 32
    workers: int = 0
    pin_memory: bool = False
    cache: bool = True
    interpolation: Interpolation = "linear"
    on_bad: Literal["refuse", "skip"] = "refuse"
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        _check_least("data.", self, train_size=1, val_size=1, test_size=1, seed=0)
        _check_least("data.", self, batch_size=1, eval_batch_size=1, workers=0)
        if min(self.image_size) < 1:
            raise UserError(f"data.image_size={list(self.image_size)}: height and width must be at least 1")


@dataclass
class DecoderFitConfig:
    """Fitting the decoders on the frozen backbone, before affinity is measured; the fit starts the training.

    Args:
        steps: optimiser steps; 0 starts from random decoders.
        lr: of AdamW.
        kind: the learning rate stays `constant`, or falls to zero as a `cosine`, which gives decoders, and with them
            an affinity, that depend less on the seed.
    """

    steps: int = 200
    lr: float = 1e-3
    kind: Literal["constant", "cosine"] = "constant"

    def __post_init__(self) -> None:
        _check_least("decoder_fit.", self, steps=0)
        if not 0 < self.lr < math.inf:
            raise UserError(f"decoder_fit.lr={self.lr}: must be a finite number above 0")


@dataclass
class AffinityConfig:
    """Measuring which tasks pull the shared parameters in the same direction.

    Args:
        samples: training images whose gradients are compared.
        batch_size: images per pass.
        normalize: `none` (plain cosine), `elementwise` or `per_tensor`.
        source: gradients of the shared `adapters` at initialisation, or of the frozen `weights`.
    """

    samples: int = 128
    batch_size: int = 16
    normalize: Literal["none", "elementwise", "per_tensor"] = "none"
    source: Literal["adapters", "weights"] = "adapters"

    def __post_init__(self) -> None:
        _check_least("affinity.", self, samples=2, batch_size=1)


@dataclass
class TreeConfig:
    """How the tree of a branched, random or anti run is chosen: by groups, by levels, or by one or both budgets.

    Args:
        groups: number of groups per level, e.g. [1, 1, 2, 4].
        budget: backbone and adapter work as a multiple of one plain backbone pass, e.g. 1.6.
        budget_params: adapter parameters.
        levels: the tree by hand: per level a list of groups, each a list of task names.
        keep_agreeing: part only tasks whose affinity is below zero on average: levels have fewer groups than `groups`
            says, or than the budget allows, where tasks agree. Random and anti-affinity trees have as many groups as
            such a tree, or as many as asked for where it has no fork.
        task_streams: give every task adapters of its own beside the tree, in the last block of each level, which only
            its decoder reads: every branch is then a comb (`Comb`). For LoRA on transformer blocks.
    """

    groups: list[int] | None = None
    budget: float | None = None
    budget_params: int | None = None
    levels: list[list[list[str]]] | None = None
    keep_agreeing: bool = False
    task_streams: bool = False

    def __post_init__(self) -> None:
        if self.levels is not None and (self.groups, self.budget, self.budget_params) != (None, None, None):
            raise UserError("tree.levels is the whole tree: set tree.groups and the budgets to null")
        if self.levels is not None and self.keep_agreeing:
            raise UserError("tree.levels is the whole tree: tree.keep_agreeing has no effect beside it, leave it out")


@dataclass
class StartFromConfig:
    """A finished run whose model this one starts from, with one task more or with fewer tasks, as `tasks` says.

    Backbone, adapter, decoder, extras, method and the common tasks are that run's; the rest may differ.

    Args:
        run: directory of the finished run; needed until this one has finished too.
        like: the task whose path the new one follows; null where none is added.
        share_levels: how many levels it shares, 0 to the number of levels; below them it has nodes of its own.
        init: of its own nodes: `fresh` leaves the backbone unchanged there, `copy` starts as those of `like`.
        train: `new` trains what the new task alone uses and keeps all else bit for bit, `all` trains everything.
    """

    run: str
    like: str | None = None
    share_levels: int | None = None
    init: Literal["fresh", "copy"] = "fresh"
    train: Literal["new", "all"] = "new"


@dataclass
class RunConfig:
    """One run.

    Args:
        name: of the run; its directory is `output/name`.
        output: folder of the runs.
        seed: of weights, order of the data, augmentation and dropout.
        method: `branched` (planned tree), `shared` (one adapter set), `separate` (one per task), `comb` (a shared
            LoRA and one per task in the last block of each level, MTLoRA), `decoders` (backbone
            frozen, no adapters), `full` (full fine-tuning of the backbone, no adapters). Controls at the group counts
            of the planned tree, or at those asked for where it has no fork: `random` (a tree drawn by the seed) and
            `anti` (planned from the negated affinity).
        tasks: by name.
        backbone: the frozen backbone.
        data: images and labels.
        adapter: what is trained inside the backbone for each node of the tree.
        adapter_share: adapters and extras together hold at most this share of the backbone's parameters, whatever the
            tree, by ranks that nearly fill it; lora_alpha stays. Null for the adapter's own ranks.
        decoder: of the dense tasks.
        extras: shared parts of the backbone to train as well: norms, patch_embed, relative_position, patch_merging.
        checkpoint_levels: levels of the backbone (true: all) whose blocks keep only their inputs while training and run
            again in the backward pass: the same numbers from less memory, for a second forward pass of these blocks.
        decoder_fit: fitting the decoders first.
        affinity: measuring the tasks' affinity.
        tree: choosing the tree.
        optimizer: how the tasks' losses become one update.
        schedule: of the learning rate.
        trainer: arguments of lightning.Trainer, e.g. max_epochs, precision, gradient_clip_val, accelerator.
        early_stopping: stop after this many epochs without a better score; null for never.
        evaluate: the checkpoint that results are computed from: `last`, or the `best` on the validation split.
        reference: what delta_m divides by: a file written by `branchtune reference`, or a packaged one by name
            (`scenes_swin`; published: `pascal_swin_t_single_task`, `nyud_swin_t_single_task`); null for none.
        loggers: Lightning loggers by class name, beside metrics.csv.
        conflict_every: epochs between two records of conflict.csv, the cosines of the tasks' gradients at every node
            that they share; 0 for none, null for as often as costs at most 2 % of the training.
        start_from: a finished run to add a task to or to remove tasks from; null for a run of its own.
    """

    tasks: dict[str, Task]
    name: str = "run"
    output: str = "runs"
    seed: int = 0
    method: Method = "branched"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: Adapter = field(default_factory=LoRA)
    adapter_share: float | None = None
    decoder: Decoder = field(default_factory=LightDecoder)
    extras: list[str] = field(default_factory=list)
    checkpoint_levels: bool | list[int] = False
    decoder_fit: DecoderFitConfig = field(default_factory=DecoderFitConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    tree: TreeConfig = field(default_factory=TreeConfig)
    optimizer: TaskOptimizer = field(default_factory=WeightedSum)
    schedule: Schedule = field(default_factory=Schedule)
    trainer: dict[str, Any] = field(default_factory=lambda: {"max_epochs": 10})
    early_stopping: int | None = None
    evaluate: Literal["last", "best"] = "last"
    reference: str | None = None
    loggers: list[str] = field(default_factory=lambda: ["TensorBoardLogger"])
    conflict_every: int | None = None
    start_from: StartFromConfig | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UserError("tasks is empty: name at least one task")
        for name, task in self.tasks.items():
            if task.name != name:
                raise UserError(f"tasks.{name} has the name {task.name!r}: key and name must be the same")
        if not self.name:
            raise UserError("name is empty: a run needs one, its directory is output/name")
        if any(part in ("", ".", "..") for part in re.split(r"[/\\]", self.name)) or PureWindowsPath(self.name).drive:
            raise UserError(
                f"name={self.name!r} leaves output: give a relative path without '..', such as demo/branched"
            )
        _check_least("", self, seed=0, early_stopping=1, conflict_every=0)
        if self.adapter_share is not None and not 0 < self.adapter_share < math.inf:
            raise UserError(f"adapter_share={self.adapter_share}: must be above 0, such as 0.2 for a fifth")
        if self.adapter_share is not None and self.tree.budget_params is not None:
            raise UserError("adapter_share fixes the adapter parameters of every tree: set tree.budget_params to null")
        _ = self.family

    @property
    def family(self) -> Adapter:
        """The adapter family of the method: `adapter`, or the comb that is made of it.

        Raises:
            UserError: streams of the tasks beside an adapter that is no LoRA.
        """
        streams = self.method == "comb" or (self.method in PLANNED and self.tree.task_streams)
        return Comb.like(self.adapter) if streams else self.adapter


def _check_least(section: str, config: object, **least: int) -> None:
    """Refuse a key below its least value; null passes where the key allows it."""
    for key, value in least.items():
        found = getattr(config, key)
        if found is not None and found < value:
            raise UserError(f"{section}{key}={found}: must be at least {value}")
