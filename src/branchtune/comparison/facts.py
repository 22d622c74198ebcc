"""What the numbers of a comparison hold for: tasks, seeds, backbone, data."""

from __future__ import annotations

from collections.abc import Mapping

from branchtune.comparison.result import Comparison
from branchtune.report.page.data_words import data_words
from branchtune.report.page.run_data import RunData
from branchtune.settings import resolved


def facts(comparison: Comparison, images: Mapping[str, int]) -> list[tuple[str, str]]:
    """Names and values.

    Args:
        comparison: its numbers.
        images: by split, see `images_of`.
    """
    config = resolved(comparison.config)
    return [
        ("methods", str(1 + len(comparison.runs))),
        ("tasks", ", ".join(next(iter(comparison.runs.values()))[0].headline)),
        ("backbone", config["backbone.name"]),
        ("image size", "×".join(map(str, config["data.image_size"]))),
        ("data", data_words(config["data.kind"], images)),
        ("seeds", ", ".join(map(str, comparison.seeds))),
        ("Δm over", comparison.reference.id),
    ]


def images_of(comparison: Comparison, kept: Mapping[str, RunData]) -> dict[str, int]:
    """How many images every split has, as one of the runs counted them.

    Without a run only rendered scenes are known to be as many as the configuration says, which is a limit elsewhere.
    """
    counted = next((run.images for run in kept.values() if run.images), None)
    if counted is not None:
        return counted
    config = resolved(comparison.config)
    sizes = {split: config.get(f"data.{split}_size") for split in ("train", "val", "test")}
    return {split: size for split, size in sizes.items() if size is not None} if config["data.kind"] == "scenes" else {}
