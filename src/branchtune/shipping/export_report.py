"""What an export wrote, and how it was checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class GraphReport:
    """An exported graph.

    Attributes:
        path: the file.
        kind: of the file, in words.
        runtime: what ran it beside torch.
        tasks: its outputs.
        image_size: height and width of its input.
        differences: per task, from torch, relative to the output's largest magnitude.
        ms, torch_ms: median milliseconds per call with one image, of the exported graph and of the model.
    """

    path: Path
    kind: str
    runtime: str
    tasks: tuple[str, ...]
    image_size: tuple[int, int]
    differences: dict[str, float]
    ms: float
    torch_ms: float

    def __str__(self) -> str:
        height, width = self.image_size
        size = self.path.stat().st_size / 1e6
        differences = ", ".join(f"{task} {value:.1e}" for task, value in self.differences.items())
        return "\n".join(
            [
                f"wrote {self.path} ({self.kind}, {size:.1f} MB): images [batch, 3, {height}, {width}] -> "
                f"{', '.join(self.tasks)}",
                "largest difference from torch, relative to the largest value, in batches of 1, 2 and 3: "
                f"{differences}",
                f"one image: {self.runtime} {self.ms:.2f} ms, torch {self.torch_ms:.2f} ms (median, "
                f"{torch.get_num_threads()} CPU threads)",
            ]
        )
