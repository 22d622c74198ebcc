"""The finished run that another one starts from: what may differ, and the model to begin with."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

from branchtune.config import RunConfig
from branchtune.errors import UserError, unknown
from branchtune.model import MultiTaskModel
from branchtune.run.directory import RunDirectory, load_settings, model_folder
from branchtune.settings import Settings
from branchtune.shipping.config import ModelConfig
from branchtune.shipping.load import read_model_config
from branchtune.tasks.task import Task
from branchtune.tree import TaskTree

# What the model of the finished run was built from, and its decoders were trained for.
FIXED = ("method", "backbone", "adapter", "adapter_share", "decoder", "extras", "data.image_size")


class Start:
    """A run's model with one more task, or with fewer.

    Args:
        config: of the new run; its `start_from` is set.

    Attributes:
        run: directory of the finished run.
        new: the task that is added, or None.
        removed: names of the tasks that are left out.

    Raises:
        UserError: the run is not finished or has no model, several tasks or none would be added or removed, or where
            the new one belongs is not said.
    """

    def __init__(self, config: RunConfig) -> None:
        assert config.start_from is not None
        self.wanted, self.checkpoint_levels = config.start_from, config.checkpoint_levels
        self.run = Path(self.wanted.run)
        self.finished = load_settings(self.run)
        before = self.finished.config.tasks
        added = [task for name, task in config.tasks.items() if name not in before]
        self.removed = [name for name in before if name not in config.tasks]
        if len(added) > 1:
            raise UserError(
                f"{len(added)} tasks are new ({', '.join(task.name for task in added)}): add one at a time, the next "
                "one to the run that has the first"
            )
        if not added and not self.removed:
            raise UserError(
                f"no task is new, {self.run} has {', '.join(before)}: give one of another name, --tasks.NAME=..."
            )
        self.new: Task | None = added[0] if added else None
        _ = self.tree

    def _place(self) -> tuple[str, int]:
        """The task whose path the new one follows, and how many levels of it are shared."""
        like, levels = self.wanted.like, self.wanted.share_levels
        if like is None or levels is None:
            missing = "like" if like is None else "share_levels"
            lines = " | ".join(" ".join(f"{{{','.join(group)}}}" for group in groups) for groups in self.before.levels)
            raise UserError(
                f"--{missing} is not set: name a task (--like) and how many levels of its path the new one shares "
                f"(--share_levels 0 to {self.before.num_levels}); the tree, level by level: {lines}"
            )
        return like, levels

    @cached_property
    def saved(self) -> ModelConfig:
        """What the finished run's model says of itself."""
        return read_model_config(model_folder(self.run))

    @property
    def before(self) -> TaskTree:
        """The tree without the removed tasks."""
        return self.saved.tree.restrict([name for name in self.saved.tree.tasks if name not in self.removed])

    @property
    def tree(self) -> TaskTree:
        if self.new is None:
            return self.before
        return self.before.with_task(self.new.name, *self._place())

    def model(self, backbone: nn.Module, train: Literal["new", "all"] | None = None) -> MultiTaskModel:
        """The model that this run begins with, in training mode where it will train.

        Args:
            backbone: the finished run's, created again.
            train: instead of the configured.
        """
        saved = model_folder(self.run)
        model = MultiTaskModel.from_pretrained(saved, backbone=backbone, checkpoint_levels=self.checkpoint_levels)
        for name in self.removed:
            model = model.remove_task(name)
        if self.new is None:
            return model
        like, levels = self._place()
        train = train or self.wanted.train
        return model.add_task(self.new, like=like, levels=levels, init=self.wanted.init, train=train).train()

    def check_same(self, settings: Settings) -> None:
        """Refuse a configuration of the new run that contradicts the model which it starts from.

        Raises:
            UserError: names the key.
        """
        if RunDirectory(settings).path.resolve() == self.run.resolve():
            raise UserError(f"{self.run} is the run to start from: choose another --name for the new one")
        old, new = self.finished.flat(), settings.flat()
        common = self.finished.config.tasks.keys() & settings.config.tasks.keys()
        fixed = tuple(f"{name}." for name in (*FIXED, *(f"tasks.{name}" for name in common)))
        for key in sorted({*old, *new}):
            if f"{key}.".startswith(fixed) and old.get(key) != new.get(key):
                raise UserError(
                    f"{key}={new.get(key)!r}, but the model of {self.run} was made with {old.get(key)!r}: leave the "
                    "key as it is, or train a run of its own"
                )

    def to_json(self) -> dict[str, Any]:
        """For the manifest: which weights these are."""
        return {"run": str(self.run), "hashes": self.saved.hashes}


def keep_tasks(settings: Settings, without: str) -> list[str]:
    """The tasks of a finished run but one.

    Raises:
        UserError: there is no such task, or it is the only one.
    """
    names = list(settings.config.tasks)
    if without not in names:
        raise unknown("task", without, names)
    if len(names) == 1:
        raise UserError(f"{without!r} is the only task: a model needs at least one")
    return [name for name in names if name != without]
