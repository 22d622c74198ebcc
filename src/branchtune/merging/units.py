"""Which modules of a level can run once per group: the largest ones that hold its sites and see nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from torch import nn

from branchtune.backbone.recorder import Call, Recording
from branchtune.backbone.spec import BackboneSpec, Site

Unit = tuple[str, ...]
"""Names of modules that run one straight after the other: one, or neighbours in a Sequential."""


def find_units(
    model: nn.Module, spec: BackboneSpec, sites: Collection[Site], one: Recording, two: Recording
) -> tuple[tuple[Unit, ...], list[str]]:
    """The units of one level that together hold its sites, in order of execution.

    Args:
        sites: those of the level, all of them.
        one, two: recordings of one and of two images.

    Returns:
        The units, and the names of sites that none of them holds.
    """
    bounds = {name for level in spec.levels for name in (level.start, level.end)}

    def stands_alone(name: str, level: int) -> bool:
        return not any(bound.startswith(f"{name}.") for bound in bounds) and _splits(name, level, one, two)

    units, left = [], []
    for site in sites:
        found = next((name for name in _path(site.name) if stands_alone(name, site.level)), None)
        if found is None:
            left.append(site.name)
        elif found not in units:
            units.append(found)
    units.sort(key=one.order.index)
    level = next(iter(sites)).level
    return tuple(_in_runs(units, model, spec, one, lambda name: stands_alone(name, level))), left


def _path(name: str) -> Iterator[str]:
    """The names of the modules around `name`, from the outermost to itself."""
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _splits(name: str, level: int, one: Recording, two: Recording) -> bool:
    """Whether all calls are inside the level, and twice the images give twice the rows, in and out."""
    alone, pair = one.calls.get(name), two.calls.get(name)
    if alone is None or pair is None or not (alone.plain and pair.plain):
        return False
    if (alone.level, pair.level) != (level, level):
        return False
    return pair.rows == 2 * alone.rows and _rows_out(pair) == [2 * rows for rows in _rows_out(alone)]


def _rows_out(call: Call) -> list[int]:
    """Rows of every output; -1 where one is no tensor, nor begins with one."""
    rows = [shape[0] if shape else -1 for shape in call.output_shapes]
    return rows if len(rows) == call.count else [-1]


def _in_runs(
    names: Sequence[str], model: nn.Module, spec: BackboneSpec, one: Recording, stands_alone: Callable[[str], bool]
) -> Iterator[Unit]:
    """Join neighbours in a Sequential: between them nothing but the one's output passes to the next."""
    ends = {level.end for level in spec.levels}
    with_sides = {side.module for side in spec.side_inputs}
    run: list[str] = []
    for name in names:
        between = _between(run[-1], name, model, one) if run else None
        joined = [] if between is None else [*between, name]
        if (
            joined
            and not ends.intersection([run[-1], *joined[:-1]])
            and not with_sides.intersection([run[-1], *joined])
            and all(map(stands_alone, joined))
        ):
            run += joined
            continue
        if run:
            yield tuple(run)
        run = [name]
    if run:
        yield tuple(run)


def _between(before: str, after: str, model: nn.Module, one: Recording) -> list[str] | None:
    """The modules between two of one Sequential that was called as a whole; None where they are not of one."""
    parent = before.rpartition(".")[0]
    if parent != after.rpartition(".")[0] or parent not in one.calls:
        return None
    sequential = model.get_submodule(parent)
    if type(sequential).forward is not nn.Sequential.forward:
        return None
    children = [f"{parent}.{key}" for key, _ in sequential.named_children()]
    run = children[children.index(before) + 1 : children.index(after)]
    once = all(name in one.calls and one.calls[name].count == 1 for name in (parent, before, *run, after))
    return run if once else None
