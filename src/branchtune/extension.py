"""Trained models with a task more or a task less, or with another plan of what trains.

Every function returns a new model and leaves the one given as it was. Both share the storage of the frozen backbone;
adapters, extras, decoders and a fine-tuned backbone are copies, so that training one model cannot move the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, get_args

import torch
from torch import nn

from branchtune.errors import UserError, check_instance, unknown
from branchtune.model import MultiTaskModel
from branchtune.tasks.task import Task
from branchtune.tree import TaskTree

Init = Literal["fresh", "copy"]
Train = Literal["new", "all"]


@torch.inference_mode(False)  # in it, nothing could be made that trains
def add_task(
    model: MultiTaskModel, task: Task, *, like: str, levels: int, init: Init = "fresh", train: Train = "new"
) -> MultiTaskModel:
    """A new model with one more task.

    The new task shares the nodes of `like` at the first `levels` levels; below them it has nodes of its own, and always
    a decoder of its own, which must be trained. The values of all old tensors are kept bit for bit, and so is
    `model(images, tasks=old)`; the keys of shared nodes change, because a node is named by its tasks (see
    `continued_nodes`).

    Unlike PEFT's `add_adapter` this returns a new model: what trains is fixed when a model is built, here by `train`.
    Optimizers of the old model do not know the new one.

    Args:
        model: any trained model. One without adapters (decoders only, full fine-tuning) cannot fork: there the new
            task shares all levels. A fully fine-tuned backbone is then copied, and at rest under train="new".
        task: of a name that the model does not have.
        like: the task whose path it follows.
        levels: how many levels it shares, 0 to the number of levels: that number shares everything.
        init: of the nodes (in Comb the streams) of its own: "fresh" leaves the backbone unchanged there, "copy" takes
            the values of `like`'s.
        train: "new" trains what the new task alone uses, nothing else moves; "all" trains all tasks.

    Returns:
        The new model, on the same device, in the same mode.

    Raises:
        UserError: the name exists, `like` does not, `levels` is out of range, the tree of such a model cannot fork, or
            an argument is of another kind.
    """
    check_instance("task", task, Task, "Depth('depth')")
    if task is None:
        raise UserError("task=None: pass a task, such as Depth('depth')")
    for what, value, known in (("init", init, get_args(Init)), ("train", train, get_args(Train))):
        if value not in known:
            raise unknown(what, value, known)
    if task.name in model.tasks:
        raise UserError(f"the model already has a task {task.name!r}: give the new one another name")
    tree = model.tree.with_task(task.name, like, levels)
    _check_forks(model, tree)
    trained = [task.name] if train == "new" else None
    grown = _rebuilt(model, [*model.tasks.values(), task], tree, trained)
    sources = continued_nodes(model.tree, tree)
    for key, adapters in grown.backbone.adapters.items():
        source = sources.get(key, key if key in model.backbone.adapters else None)
        of_like = _key_of(model, like, key)
        if source is not None:
            _copy(model.backbone.adapters[source], adapters)
        elif init == "copy":
            _copy(model.backbone.adapters[of_like], adapters)
        else:
            _placed_like(model.backbone.adapters[of_like], adapters)
    _placed_like(model.decoders[like], grown.decoders[task.name])
    return grown


@torch.inference_mode(False)
def remove_task(model: MultiTaskModel, name: str) -> MultiTaskModel:
    """A new model without a task: its decoder and the nodes that no other task uses are left out.

    The outputs of the others are the same bits as `model(images, tasks=others)` gives; a call with all tasks multiplies
    larger matrices, whose rounding may differ. What trains is what trained before, or everything where nothing but the
    removed task did.

    Args:
        model: any trained model.
        name: of the task to leave out.

    Raises:
        UserError: there is no such task, or it is the only one.
    """
    if not isinstance(name, str) or name not in model.tasks:
        raise unknown("task", name, model.tasks)
    rest = [task for task in model.tasks.values() if task.name != name]
    if not rest:
        raise UserError(f"{name!r} is the only task: a model needs at least one")
    tree = model.tree.restrict([task.name for task in rest])
    trained = [task for task in model.train_tasks if task != name] if _partial(model) else None
    with torch.random.fork_rng(devices=[]):  # what is drawn is replaced
        pruned = _rebuilt(model, rest, tree, trained or None)
    sources = continued_nodes(model.tree, tree)
    for key, adapters in pruned.backbone.adapters.items():
        _copy(model.backbone.adapters[sources.get(key, key)], adapters)
    return pruned


@torch.inference_mode(False)
def training_only(model: MultiTaskModel, tasks: Collection[str] | None) -> MultiTaskModel:
    """A new model of the same weights under another plan: these tasks train, None for all.

    Their decoders train, the nodes that no other task uses and, with all tasks, extras and backbone.

    Args:
        model: any trained model.
        tasks: names of those that train; None for all.

    Raises:
        UserError: no task, or an unknown one.
    """
    with torch.random.fork_rng(devices=[]):
        same = _rebuilt(model, list(model.tasks.values()), model.tree, tasks)
    for key, adapters in same.backbone.adapters.items():
        _copy(model.backbone.adapters[key], adapters)
    return same


def continued_nodes(old: TaskTree, new: TaskTree) -> dict[str, str]:
    """The nodes of `new` that hold tasks of `old`, by their keys: each with the key of the node of `old` that it was.

    It renames the adapters of a state dict after tasks have joined or left: `backbone.adapters.<key>.<site>.<tensor>`.

    Args:
        old: the tree before.
        new: the tree after.

    Examples:
        >>> old = TaskTree([[["a", "b"]], [["a"], ["b"]]])
        >>> continued_nodes(old, old.with_task("c", like="a", levels=1))
        {'0/a+b+c': '0/a+b', '1/a': '1/a', '1/b': '1/b'}
    """
    continued = {}
    for node in new.nodes():
        known = [task for task in node.tasks if task in old.tasks]
        if known:
            groups = old.levels[node.level]
            continued[node.key] = f"{node.level}/{'+'.join(groups[old.group_of(known[0], node.level)])}"
    return continued


def _rebuilt(
    model: MultiTaskModel, tasks: Iterable[Task], tree: TaskTree, train_tasks: Collection[str] | None
) -> MultiTaskModel:
    """The model of these tasks with what `model` has but for the adapters, which are still as at the start."""
    tasks = list(tasks)
    new = MultiTaskModel(
        model.backbone.frozen,
        tasks,
        tree,
        model.adapter,
        model.decoder,
        extras=model.extras,
        train_backbone=model.backbone.train_backbone,
        train_tasks=train_tasks,
        checkpoint_levels=model.backbone.checkpoint_levels,
        spec=model.spec,
    )
    for task in tasks:
        if task.name in model.decoders:
            _copy(model.decoders[task.name], new.decoders[task.name])
    return new.train(model.training)


def _check_forks(model: MultiTaskModel, tree: TaskTree) -> None:
    if model.adapter is None and max(tree.group_counts) > 1:
        raise UserError(
            "the model has no adapters, its tree cannot fork: a new task can only share all levels "
            f"(levels={tree.num_levels})"
        )


def _key_of(model: MultiTaskModel, task: str, key: str) -> str:
    """The key of what `task` has where the node or stream of this key is."""
    level, _, rest = key.partition("/")
    if rest.endswith("/stream"):
        return f"{level}/{task}/stream"
    return f"{level}/{'+'.join(model.tree.levels[int(level)][model.tree.group_of(task, int(level))])}"


def _partial(model: MultiTaskModel) -> bool:
    return len(model.train_tasks) < len(model.tasks)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    """The values of `source`, with their precision and device."""
    own = target.state_dict(keep_vars=True)
    for name, tensor in source.state_dict(keep_vars=True).items():
        own[name].data = tensor.detach().clone()


@torch.no_grad()
def _placed_like(source: nn.Module, target: nn.Module) -> None:
    like = next(source.parameters(), None)
    if like is not None:
        target.to(like.device, like.dtype)
