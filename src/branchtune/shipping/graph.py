"""A model as one traced graph: images -> the outputs of its tasks, for any batch size and one image size."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from branchtune._version import __version__
from branchtune.backbone.check import image_channels
from branchtune.backbone.statistics import image_statistics
from branchtune.errors import UserError
from branchtune.low_memory.model import LowMemoryModel
from branchtune.model import MultiTaskModel
from branchtune.route import Route
from branchtune.scalars import whole
from branchtune.shipping.attention import FourDimensionalAttention
from branchtune.shipping.graph_errors import running_error, tracing_error
from branchtune.shipping.quiet import quiet

INPUT = "images"


class Outputs(nn.Module):
    """The model with its tasks fixed: images `[B, C, H, W]` -> the output of each."""

    def __init__(self, model: MultiTaskModel, tasks: Sequence[str]) -> None:
        super().__init__()
        self.model, self.tasks = model, list(tasks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.model(images, self.tasks)


@dataclass(frozen=True)
class Graph:
    """What an exporter writes down, and the module that it must agree with.

    Attributes:
        module: a copy of the model, in float32 on the CPU.
        program: its trace, without the parameters that these tasks do not need.
        image_size: height and width.
    """

    module: Outputs
    program: ExportedProgram
    image_size: tuple[int, int]

    @property
    def tasks(self) -> list[str]:
        return self.module.tasks

    def images(self, batch: int) -> Tensor:
        """`[batch, C, H, W]` at random, the same in every call."""
        return _images(self.module, batch, self.image_size)

    def properties(self) -> dict[str, Any]:
        """What the user of a file has to know beside its inputs and outputs, ready for JSON."""
        model = self.module.model
        channels = image_channels(model.backbone.frozen)
        mean, std = (s if len(s) == channels else None for s in image_statistics(model.backbone.frozen))
        return {
            "branchtune_version": __version__,
            "tasks": self.tasks,
            "kinds": {name: type(model.tasks[name]).__name__ for name in self.tasks},
            "image_size": self.image_size,
            "mean": mean,
            "std": std,
        }


def trace_graph(
    model: MultiTaskModel, tasks: Sequence[str] | None = None, image_size: int | tuple[int, int] | None = None
) -> Graph:
    """Trace a copy of the model in eval mode with a dynamic batch.

    Args:
        tasks: the outputs, in this order; default: all tasks.
        image_size: height and width, or one number for both; default: those that the backbone was traced with.

    Raises:
        UserError: a low-memory model, an unknown task, a size that the backbone cannot take, or code that fails or
            cannot be traced.
    """
    if isinstance(model, LowMemoryModel):
        raise UserError("graphs are exported in float32: export the model that this low-memory one was made from")
    names = task_names(model, tasks)
    if INPUT in names:
        raise UserError(f"a task named {INPUT!r} has the name of the graph's input: leave it out, or rename it")
    size = model.spec.image_size if image_size is None else _size(image_size)
    module = Outputs(copy.deepcopy(model).cpu().float(), names).eval().requires_grad_(False)
    images = _images(module, 2, size)
    with torch.no_grad():
        try:
            module(images)
        except Exception as error:
            raise running_error(error, module) from error
        try:
            program = _trace(module, images)
        except Exception as error:
            raise tracing_error(error, module, lambda task: _trace(Outputs(module.model, [task]), images)) from error
    return Graph(module, program, size)


def task_names(model: MultiTaskModel, tasks: Sequence[str] | None) -> list[str]:
    """The tasks asked for, each once, or all of them.

    Raises:
        UserError: no model, an unknown task, or none.
    """
    if not isinstance(model, MultiTaskModel):
        raise UserError(f"model is of type {type(model).__name__}: pass a MultiTaskModel")
    if tasks is None:
        return list(model.tasks)
    if isinstance(tasks, str):
        raise UserError(f"tasks={tasks!r} is a text: pass a list, tasks=[{tasks!r}]")
    if not isinstance(tasks, Collection):
        raise UserError(f"tasks={tasks!r}: pass a list of names, such as {list(model.tasks)[:1]}")
    return list(Route.of(model.tree, tasks).slot)


def _size(image_size: Any) -> tuple[int, int]:
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sides) != 2 or any(whole("image_size", side) < 1 for side in sides):
        raise UserError(f"image_size={image_size!r} is not a size: give one whole number, or (height, width)")
    return int(sides[0]), int(sides[1])


def _images(module: Outputs, batch: int, size: tuple[int, int]) -> Tensor:
    channels = image_channels(module.model.backbone.frozen)
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(batch))


def _trace(module: Outputs, images: Tensor) -> ExportedProgram:
    with quiet(), FourDimensionalAttention():
        program = torch.export.export(module, (images,), dynamic_shapes={INPUT: {0: Dim("batch")}}, strict=False)
    _prune(program)
    return program


def _prune(program: ExportedProgram) -> None:
    """Drop what no output needs: what follows the last level, and the weights of that and of other tasks."""
    graph, signature = program.graph, program.graph_signature
    graph.eliminate_dead_code()
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for spec in list(signature.input_specs):
        node = placeholders[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT or node.users:
            continue
        graph.erase_node(node)
        signature.input_specs.remove(spec)
        program.state_dict.pop(spec.target, None)
        program.constants.pop(spec.target, None)
    program.graph_module.recompile()
