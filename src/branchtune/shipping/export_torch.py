"""Model -> a `torch.export` program in a .pt2 file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch

from branchtune.atomic import other_work, replace_file
from branchtune.model import MultiTaskModel
from branchtune.shipping.export_path import check_output
from branchtune.shipping.export_report import GraphReport
from branchtune.shipping.graph import trace_graph
from branchtune.shipping.quiet import quiet

PROPERTIES = "branchtune.json"


def export_torch(
    model: MultiTaskModel,
    path: str | os.PathLike[str],
    *,
    tasks: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    overwrite: bool = False,
) -> GraphReport:
    """Write what `torch.export.load(path).module()` runs without branchtune: images `[B, 3, H, W]` -> {task: output}.

    Float32, any batch, one image size, on the CPU (`torch.export.passes.move_to_device_pass` moves the program). The
    file's extra file `branchtune.json` holds the properties of `export_onnx`. It is written only if it was loaded again
    and agrees with the model on batches of 1, 2 and 3 random images.

    Args:
        model: trained; it is left as it was.
        path: the file.
        tasks: the outputs; the rest of the tree is no part of the program. Default: all.
        image_size: height and width, or one number for both; default: those that the model was made for.
        overwrite: replace the file at `path`.

    Raises:
        UserError: the path is taken or cannot be written; an unknown task; code that cannot be traced; a program that
            differs from the model.
    """
    path = check_output(path, overwrite, file=True)
    graph = trace_graph(model, tasks, image_size)
    for node in graph.program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    extra: dict[str, Any] = {PROPERTIES: json.dumps(graph.properties())}
    with replace_file(path) as temporary:
        with temporary.open("wb") as file, quiet():
            torch.export.save(graph.program, file, extra_files=extra)
        with other_work():
            with temporary.open("rb") as file, quiet():
                run = torch.export.load(file).module()
            return GraphReport.of(path, temporary, run, graph, "torch.export", "exported")
