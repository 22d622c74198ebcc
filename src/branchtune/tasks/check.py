"""The tasks that a model is given: what they must be, which of them train, and whether its tree is theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import nn

from branchtune.errors import UserError, unknown
from branchtune.tasks.task import Task
from branchtune.tree import TaskTree


def check_tasks(tasks: Sequence[Task]) -> dict[str, Task]:
    """The tasks by name.

    Raises:
        UserError: no task, something that is not one, or two of one name.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Task | Iterable):
        raise UserError(f"tasks={tasks!r}: pass a list of tasks, such as [Depth('depth')]")
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    for task in tasks:
        if not isinstance(task, Task):
            raise UserError(f"{task!r} is not a task: pass instances such as Depth('depth')")
    names = [task.name for task in tasks]
    if not names:
        raise UserError("no task: pass at least one, such as Depth('depth')")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"two tasks are named {repeated[0]!r}: give each its own name")
    for name in names:
        if hasattr(nn.ModuleDict(), name):
            raise UserError(f"a task cannot be named {name!r}, which is an attribute of torch's modules: rename it")
    return dict(zip(names, tasks, strict=True))


def check_train_tasks(names: Collection[str] | None, tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """The tasks that train, in the order of `tasks`; all of them for None.

    Raises:
        UserError: an unknown name, none, or no list of names.
    """
    if names is None:
        return tuple(tasks)
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
        raise UserError(
            f"train_tasks={names!r}: pass a list of names, such as {list(tasks)[-1:]}, or None for all tasks"
        )
    for name in names:
        if name not in tasks:
            raise unknown("task in train_tasks", name, tasks)
    return tuple(name for name in tasks if name in names)


def check_tree(tree: TaskTree, tasks: Mapping[str, Task]) -> None:
    """Refuse a tree of other tasks than these.

    Raises:
        UserError: a task that only one of the two has.
    """
    for name in tree.tasks:
        if name not in tasks:
            raise unknown("task in the tree", name, tasks)
    missing = sorted(set(tasks) - set(tree.tasks))
    if missing:
        raise UserError(f"the tree misses task {missing[0]!r}: every task belongs to one group at every level")
