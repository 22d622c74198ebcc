"""Whether an exported graph computes what the model computes, and how fast."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.shipping.graph import Graph

BATCHES = (1, 2, 3)
TOLERANCE = 1e-4
# Where the model itself is unstable in float32, its own rounding error times this is allowed.
ROUNDING = 4.0

Run = Callable[[Tensor], Mapping[str, Tensor]]


@torch.no_grad()
def check_outputs(run: Run, graph: Graph, what: str) -> dict[str, float]:
    """Run the exported graph and the model on batches of 1, 2 and 3 random images.

    Args:
        run: the exported graph.
        graph: what it was made from.
        what: the exported graph in a message.

    Returns:
        Per task the largest difference, relative to the largest magnitude of its output.

    Raises:
        UserError: a difference above `TOLERANCE` that torch's own rounding error does not explain (float32 against
            float64; normals of nearly no length have one of this size), or a batch that the graph cannot run.
    """
    worst = dict.fromkeys(graph.tasks, 0.0)
    for batch in BATCHES:
        images = graph.images(batch)
        expected = graph.module(images)
        try:
            found = run(images)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{what} does not run with {batch} images: {reason}; nothing was written") from error
        for task in graph.tasks:
            difference = _difference(found[task], expected[task])
            if not difference <= TOLERANCE and not _is_rounding(found[task], expected[task], graph, task, images):
                raise UserError(
                    f"{what} gives other values for task {task!r} than the model ({difference:.1e} of the largest, "
                    f"with {batch} images): nothing was written; leave the task out (tasks=[...])"
                )
            worst[task] = max(worst[task], difference)
    return worst


def _difference(found: Tensor, expected: Tensor) -> float:
    """NaN where one of them has a value that is not finite."""
    if found.shape != expected.shape:
        return float("nan")
    found, expected = found.double(), expected.double()
    largest = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found - expected).abs().max() / largest)


def _is_rounding(found: Tensor, expected: Tensor, graph: Graph, task: str, images: Tensor) -> bool:
    """Whether `found` is as near to the output in float64 as the model's own in float32 is."""
    if found.shape != expected.shape:
        return False
    model = copy.deepcopy(graph.module.model).double()
    exact = model(images.double(), [task])[task]
    return _difference(found, exact) <= ROUNDING * _difference(expected, exact)


def milliseconds(run: Run, images: Tensor, repeats: int = 7) -> float:
    """Median time of a call, after one that is not counted."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])
