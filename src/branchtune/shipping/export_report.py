"""What a graph's export wrote, and how it was checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from branchtune.shipping.graph import Graph
from branchtune.shipping.graph_check import Run, check_outputs, milliseconds


@dataclass(frozen=True)
class GraphReport:
    """An exported graph.

    Attributes:
        path: the file.
        kind: of the file, in words.
        runtime: what ran it beside torch.
        tasks: its outputs.
        image_size: height and width of its input.
        channels: of its input.
        size: of the file, in bytes.
        differences: per task, from torch, relative to the output's largest magnitude.
        ms: median milliseconds per call of the exported graph with one image.
        torch_ms: the same of the model.
    """

    path: Path
    kind: str
    runtime: str
    tasks: tuple[str, ...]
    image_size: tuple[int, int]
    channels: int
    size: int
    differences: dict[str, float]
    ms: float
    torch_ms: float

    @classmethod
    def of(cls, path: Path, written: Path, run: Run, graph: Graph, kind: str, runtime: str) -> GraphReport:
        """Check and time what lies at `written` and will become `path`.

        Raises:
            UserError: it differs from the model, see `check_outputs`.
        """
        differences = check_outputs(run, graph, f"the exported graph ({kind})")
        image = graph.images(1)
        return cls(
            path=path,
            kind=kind,
            runtime=runtime,
            tasks=tuple(graph.tasks),
            image_size=graph.image_size,
            channels=image.shape[1],
            size=written.stat().st_size,
            differences=differences,
            ms=milliseconds(run, image),
            torch_ms=milliseconds(graph.module, image),
        )

    def __str__(self) -> str:
        height, width = self.image_size
        differences = ", ".join(f"{task} {value:.1e}" for task, value in self.differences.items())
        return (
            f"wrote {self.path} ({self.kind}, {self.size / 1e6:.1f} MB): images "
            f"[batch, {self.channels}, {height}, {width}] -> "
            f"{', '.join(self.tasks)}\n"
            f"largest difference from torch, relative to the largest value, in batches of 1, 2 and 3: {differences}\n"
            f"one image: {self.runtime} {self.ms:.2f} ms, torch {self.torch_ms:.2f} ms "
            f"(median, CPU threads: {torch.get_num_threads()})"
        )
