"""Where the levels of a backbone begin and end, by module name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from branchtune.errors import UserError, unknown

DEFAULT_NUM_LEVELS = 4


@dataclass(frozen=True)
class LevelBounds:
    """Module names of a level; `start` is None where the level starts with the first call after the one before."""

    start: str | None
    end: str


def resolve_levels(backbone: nn.Module, levels: str | Sequence[str] | None = None) -> tuple[LevelBounds, ...]:
    """The levels' bounds.

    Args:
        backbone: a timm model with `feature_info`, or any module when `levels` names its levels.
        levels: None or "natural" for the last four boundaries of `feature_info` (plain ViTs: four equal runs of
            blocks); "after_merging" for Swin features read after patch merging, as the MTLoRA protocol does; or an
            ordered list of module names, each one module or a run `first:last`.

    Raises:
        UserError: no feature_info and no list; a name that does not exist; a backbone without patch merging.
    """
    modules = dict(backbone.named_modules())
    if levels is None or levels == "natural":
        return _natural(backbone, modules)
    if levels == "after_merging":
        return _after_merging(modules)
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not all(isinstance(e, str) for e in levels):
        raise UserError(f"levels={levels!r}: use 'natural', 'after_merging' or a list of module names")
    if not levels:
        raise UserError("levels=[] is empty: name at least one module of the backbone")
    return tuple(_explicit(entry, modules) for entry in levels)


def _explicit(entry: str, modules: dict[str, nn.Module]) -> LevelBounds:
    start, _, end = entry.partition(":")
    for name in (start, end or start):
        if name not in modules or not name:
            depth = max(1, name.count("."))
            raise unknown("level (module of the backbone)", name, [n for n in modules if n.count(".") <= depth and n])
    return LevelBounds(start, end or start)


def _natural(backbone: nn.Module, modules: dict[str, nn.Module]) -> tuple[LevelBounds, ...]:
    info = getattr(backbone, "feature_info", None)
    if info is None:
        raise UserError(
            f"{type(backbone).__name__} has no feature_info: pass levels=[...] with the names of its modules, in order"
        )
    entries = list(info) if isinstance(info, list) else [info[i] for i in range(len(info))]
    names = [entry["module"] for entry in entries]
    missing = [name for name in names if name not in modules]
    if missing:
        raise UserError(
            f"feature_info names module {missing[0]!r}, which {type(backbone).__name__} does not have: pass "
            "levels=[...]"
        )
    if len({entry["reduction"] for entry in entries}) == 1 and len(names) > DEFAULT_NUM_LEVELS:
        runs = [list(run) for run in np.array_split(names, DEFAULT_NUM_LEVELS)]
        return tuple(LevelBounds(str(run[0]), str(run[-1])) for run in runs)
    ends = names[-DEFAULT_NUM_LEVELS:]
    before = names[-DEFAULT_NUM_LEVELS - 1] if len(names) > DEFAULT_NUM_LEVELS else None
    first = LevelBounds(_first_sibling(ends[0], before, modules), ends[0])
    return (first, *(LevelBounds(None, end) for end in ends[1:]))


def _first_sibling(end: str, before: str | None, modules: dict[str, nn.Module]) -> str:
    """The first module of the run that ends with `end` in its Sequential or ModuleList, after boundary `before`."""
    parent, _, last = end.rpartition(".")
    if not isinstance(modules[parent], nn.Sequential | nn.ModuleList) or not last.isdigit():
        return end
    first = 0
    if before is not None and before.rpartition(".")[0] == parent:
        first = int(before.rpartition(".")[2]) + 1
    return f"{parent}.{first}"


def _after_merging(modules: dict[str, nn.Module]) -> tuple[LevelBounds, ...]:
    stages = sorted(
        (name.removesuffix(".blocks") for name in modules if name.startswith("layers.") and name.endswith(".blocks")),
        key=lambda name: int(name.split(".")[1]),
    )
    merged = [f"{stage}.downsample" for stage in stages[1:]]
    if not stages or not all(name in modules for name in merged):
        raise UserError(
            "levels='after_merging' needs a Swin backbone (layers.N.blocks and layers.N.downsample): use 'natural'"
        )
    return tuple(LevelBounds(f"{stage}.blocks", end) for stage, end in zip(stages, [*merged, stages[-1]], strict=True))
