"""Model -> one ONNX graph."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from branchtune.atomic import other_work, replace_file
from branchtune.errors import UserError
from branchtune.installed import check_installed
from branchtune.model import MultiTaskModel
from branchtune.shipping.export_path import check_output
from branchtune.shipping.export_report import GraphReport
from branchtune.shipping.graph import INPUT, Graph, trace_graph
from branchtune.shipping.graph_check import Run
from branchtune.shipping.graph_errors import conversion_error
from branchtune.shipping.quiet import quiet

OPSET = 20
LARGEST = 2**31  # bytes of a protobuf message


def export_onnx(
    model: MultiTaskModel,
    path: str | os.PathLike[str],
    *,
    tasks: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    overwrite: bool = False,
) -> GraphReport:
    """Write one ONNX graph (opset 20, float32): input `images` `[batch, 3, H, W]`, one output named after each task.

    Any batch, one image size; what tasks share is computed once. The file's metadata properties `tasks`, `kinds`,
    `image_size`, `mean`, `std` and `branchtune_version` hold JSON: images enter as (pixels in [0, 1] - mean) / std. The
    file is written only if onnxruntime runs it and agrees with the model on batches of 1, 2 and 3 random images.

    Args:
        model: trained; it is left as it was.
        path: the file.
        tasks: the outputs; the rest of the tree is no part of the graph. Default: all.
        image_size: height and width, or one number for both; default: those that the model was made for.
        overwrite: replace the file at `path`.

    Raises:
        UserError: onnx, onnxruntime or onnxscript is missing; the path is taken or cannot be written; an unknown task;
            an operation that ONNX lacks; a graph that differs from the model, or of 2 GB and more.
    """
    check_installed("exporting to ONNX", "onnx", "onnx", "onnxruntime", "onnxscript")
    path = check_output(path, overwrite, file=True)
    graph = trace_graph(model, tasks, image_size)
    held = (*graph.program.state_dict.values(), *graph.program.constants.values())
    weights = sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))
    if weights >= LARGEST:
        raise UserError(
            f"weights of {weights / 1e9:.1f} GB do not fit into an ONNX file (2 GB): use --format torch, or fewer tasks"
        )
    content = _convert(graph)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)
        with other_work():
            run = _session(temporary, graph.tasks)
            return GraphReport.of(path, temporary, run, graph, f"ONNX opset {OPSET}", "onnxruntime")


def _convert(graph: Graph) -> bytes:
    try:
        with quiet():
            converted: Any = torch.onnx.export(
                graph.program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=graph.tasks,
                dynamic_shapes={INPUT: {0: "batch"}},
                verbose=False,
            )
    except Exception as error:
        raise conversion_error(error, graph.program) from error
    ir = converted.model
    _free_names(ir.graph, graph.tasks)
    ir.graph.metadata_props.clear()
    for node in ir.graph.all_nodes():
        # the exporter's notes hold paths of this machine; this one is the module that viewers show
        for name in set(node.metadata_props) - {"namespace"}:
            del node.metadata_props[name]
    ir.metadata_props.update({name: json.dumps(value) for name, value in graph.properties().items()})
    return bytes(converted.model_proto.SerializeToString())


def _free_names(ir: Any, tasks: list[str]) -> None:
    """The outputs are named after the tasks: a value inside that the exporter gave such a name, "add", loses it."""
    for node in ir.all_nodes():
        for value in node.outputs:
            if value.name in tasks and not value.is_graph_output():
                value.name = f"{value.name}.inside"  # no name of a task, nor one that the exporter makes


def _session(path: Path, tasks: list[str]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"onnxruntime cannot load the exported graph ({reason}): nothing was written") from error

    def run(images: Tensor) -> dict[str, Tensor]:
        arrays = session.run(tasks, {INPUT: images.numpy()})
        return {task: torch.from_numpy(array) for task, array in zip(tasks, arrays, strict=True)}

    return run
