"""The cells of a comparison's tables."""

from __future__ import annotations

import math

from branchtune.comparison.methods import SINGLE, TITLES
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Row, Spread, advantage, rows
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import arrow, count, number, rounded

DIFFERENCE = ["mean", "standard error", "95 % interval", "verdict"]


def tables(comparison: Comparison) -> list[Cells]:
    """Everything that a comparison prints, without empty tables."""
    made = (quality(comparison), parameters(comparison), cost(comparison), differences(comparison))
    return [cells for cells in made if cells.body]


def quality(comparison: Comparison) -> Cells:
    """Headline metrics and delta_m: mean and standard deviation over seeds."""
    first = next(iter(comparison.runs.values()))[0]
    heading = [f"{task} {name} {arrow(first.higher_is_better[task])}" for task, name in first.headline.items()]
    body = [
        [
            TITLES[row.method],
            *(_spread(row.metrics[task]) for task in first.headline),
            _spread(row.delta_m, signed=True),
        ]
        for row in rows(comparison)
    ]
    seeds = ", ".join(map(str, comparison.seeds))
    return Cells(f"Mean and standard deviation over seeds {seeds}", ["method", *heading, "Δm %"], body)


def parameters(comparison: Comparison) -> Cells:
    """Trainable parameters by owner, and those inside the backbone as a share of its size."""
    owners = ("adapters", "extras", "decoders", "backbone")
    first = next(iter(comparison.runs.values()))[0]
    size = sum(first.parameters[owner] for owner in ("frozen", "extras", "backbone"))
    body = [
        [TITLES[row.method], *(count(row.parameters.get(o, 0)) for o in owners), f"{row.inside / size:.1%}"]
        for row in rows(comparison)
    ]
    title = "Trainable parameters by owner; inside the backbone (all but decoders) as a share of its size"
    return Cells(title, ["method", *owners, "inside"], body)


def cost(comparison: Comparison, timed: bool = False) -> Cells:
    """Work per image, groups per level, training time and memory, and the tuned learning rate.

    Args:
        timed: with the milliseconds per image, for which a terminal has no room.
    """
    heading = ["method", "groups", "MACs backbone", "MACs decoders", *(["ms"] if timed else [])]
    heading += ["train s", "train MiB", "lr x"]
    body = [_cost(row, comparison.tuning[row.method].factor, timed) for row in rows(comparison)]
    work = "MACs and milliseconds" if timed else "MACs"
    return Cells(f"{work} per image for all tasks; time and memory of training; multiple of the rate", heading, body)


def differences(comparison: Comparison, method: str = "branched") -> Cells:
    """delta_m of `method` minus that of every other one, paired by seed."""
    others = [other for other in (SINGLE, *comparison.runs) if other != method]
    body = []
    for other in others if method in comparison.runs else ():
        spread = advantage(comparison, method, other)
        body.append([f"{TITLES[method]} − {TITLES[other]}", *difference(spread)])
    return Cells("Differences of Δm in points, paired by seed", ["difference", *DIFFERENCE], body)


def difference(spread: Spread) -> list[str]:
    """The cells under `DIFFERENCE`."""
    known = not math.isnan(spread.error)
    low, high = rounded(spread.mean - spread.margin), rounded(spread.mean + spread.margin)
    interval = [f"{spread.error:.2f}", f"{low:+.2f} to {high:+.2f}"] if known else ["-", "-"]
    return [f"{rounded(spread.mean):+.2f}", *interval, verdict(spread)]


def verdict(spread: Spread) -> str:
    """Whether the 95 % confidence interval of the difference lies on one side of zero, and on which."""
    if math.isnan(spread.error):
        return "one seed: undecided"
    if spread.mean == spread.deviation == 0:
        return "identical"  # a planned tree without a fork is the shared set or the comb
    if abs(spread.mean) <= spread.margin:
        return "within noise"
    return "ahead" if spread.mean > 0 else "behind"


def _cost(row: Row, factor: float, timed: bool) -> list[str]:
    groups = "-".join(map(str, row.groups)) or "-"
    macs = [count(row.macs[part]) for part in ("backbone", "decoders")]
    memory = "-" if row.memory is None else f"{row.memory / 2**20:.0f}"
    time = [number(row.ms_per_image)] if timed else []
    return [TITLES[row.method], groups, *macs, *time, f"{row.seconds.mean:.0f}", memory, f"{factor:g}"]


def _spread(spread: Spread, signed: bool = False) -> str:
    digits = 2 if signed or abs(spread.mean) >= 10 else 3 if abs(spread.mean) >= 0.1 else 4
    text = f"{rounded(spread.mean, digits):{'+' if signed else ''}.{digits}f}"
    return text if math.isnan(spread.deviation) else f"{text} ± {spread.deviation:.{digits}f}"
