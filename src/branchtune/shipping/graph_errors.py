"""Why a model cannot be traced or converted, in one line that names the task, the module or the operation."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

import branchtune
from branchtune.errors import UserError
from branchtune.shipping.quiet import quiet
from branchtune.tasks.task import Task

if TYPE_CHECKING:
    from branchtune.shipping.graph import Outputs

_WAY_OUT = "write it with tensor operations, or leave the task out (tasks=[...])"


def tracing_error(error: Exception, module: Outputs, retrace: Callable[[str], Any]) -> UserError:
    """What `torch.export` stumbled over.

    Args:
        error: its exception.
        module: what was traced.
        retrace: traces one task alone, to find the one that fixes the batch size.
    """
    if isinstance(error, UserError):
        return error
    first = _first_line(error)
    if "Constraints violated" in first:
        where = _culprit(module.tasks, retrace)
        return UserError(
            f"{where} fixes the batch size: use x.shape[0], not len(x), int(x.shape[0]) or a loop over the images"
        )
    where, line = _place(error, module)
    reason = "its code depends on the values of a tensor" if "data-dependent" in first else first
    return UserError(f"{where} cannot be traced{line}: {reason}; {_WAY_OUT}")


def running_error(error: Exception, module: Outputs) -> UserError:
    """What the model itself stumbled over, before anything was traced.

    Args:
        error: its exception.
        module: what was called.
    """
    if isinstance(error, UserError):
        return error
    where, line = _place(error, module)
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return UserError(f"{where} fails{line} with {reason}; export a model that runs on images alone")


def conversion_error(error: BaseException, program: ExportedProgram) -> UserError:
    """What the ONNX exporter has no translation for.

    Args:
        error: its exception.
        program: what was converted.
    """
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    operations = [found[1] for cause in causes for found in re.finditer(r"target=torch\.ops\.([\w.]+)", str(cause))]
    reason = _first_line(causes[-1])
    if not operations:
        return UserError(f"the model cannot be converted to ONNX: {reason}; try --format torch")
    where = _module_of(operations[0], program)
    return UserError(
        f"{where} uses {operations[0]}, which cannot be converted to ONNX ({reason}): replace it, leave the task out "
        "(tasks=[...]), or use --format torch"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _culprit(tasks: list[str], retrace: Callable[[str], Any]) -> str:
    failing = []
    for task in tasks:
        try:
            retrace(task)
        except Exception:
            failing.append(task)
    if len(failing) == len(tasks) > 1:
        return "the backbone, or the code of every task,"
    return f"the code of {_tasks(failing or tasks)}"


def _tasks(names: list[str]) -> str:
    return f"task{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _place(error: Exception, module: nn.Module) -> tuple[str, str]:
    """The deepest module or task that was running, and the deepest line of the user's own code, if there is one."""
    names = {id(child): name for name, child in module.named_modules()}
    where, line = "the model", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, Task):
            where = f"task {owner.name!r}"
        elif isinstance(owner, nn.Module) and names.get(id(owner)):
            where = _describe(names[id(owner)])
        line = _own_line(frame.f_code.co_filename, number) or line
    return where, line


def _own_line(file: str, number: int | str) -> str:
    """A line of the user's own code; nothing for a line of a library."""
    import timm  # longer to import than torch, and only an error needs it

    libraries = [str(Path(str(package.__file__)).parent) for package in (torch, timm, branchtune)]
    return "" if file.startswith((*libraries, "<")) else f" ({Path(file).name}, line {number})"


def _describe(path: str) -> str:
    """A module of `Outputs` in the user's words."""
    path = path.removeprefix("model").removeprefix(".")
    if path.startswith("decoders."):
        task, _, inside = path.removeprefix("decoders.").partition(".")
        return f"the decoder of task {task!r}" + (f" ({inside})" if inside else "")
    if path.startswith("backbone.frozen."):
        return f"module {path.removeprefix('backbone.frozen.')!r} of the backbone"
    return "the model"


def _module_of(operation: str, program: ExportedProgram) -> str:
    """The module that an operation comes from, and its line of code; ONNX sees operations after decomposition."""
    with quiet():
        decomposed = program.run_decompositions()
    for graph in (program.graph, decomposed.graph):
        for node in graph.nodes:
            stack = node.meta.get("nn_module_stack")
            if stack and str(node.target) == operation:
                return _describe(list(stack.values())[-1][0]) + _line(node.meta.get("stack_trace") or "")
    return "the model"


def _line(stack_trace: str) -> str:
    """The deepest line of the user's own code in a node's stack trace."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', stack_trace)
    return next(filter(None, (_own_line(file, number) for file, number in reversed(lines))), "")
