"""The data of a run in words: how many images its splits have, and which of them its metrics are computed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def data_words(kind: str, images: Mapping[str, int]) -> str:
    """`nyud; 795 train, 654 val images`, or the kind alone where nothing is counted.

    Args:
        kind: `data.kind` of the configuration.
        images: by split.
    """
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    return f"{kind}; {counts} images" if counts else kind


def evaluated_on(images: Mapping[str, int]) -> str:
    """`654 images of split “val”`: the test split where the run opened one; empty where they are not counted."""
    split = "test" if "test" in images else "val"
    return f"{images[split]} images of split “{split}”" if split in images else ""


def evaluated_each(images: Sequence[Mapping[str, int]], titles: Sequence[str]) -> str:
    """The same for several runs, by title where they differ."""
    found: dict[str, list[str]] = {}
    for counts, title in zip(images, titles, strict=True):
        found.setdefault(evaluated_on(counts), []).append(title)
    if len(found) == 1:
        return next(iter(found))
    return " and ".join(f"{words or 'images not counted'} ({', '.join(names)})" for words, names in found.items())
