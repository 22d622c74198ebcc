"""The tables of one run or of several beside each other: headline metrics, all metrics, cost, nodes of the tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from branchtune.evaluation.references import Reference
from branchtune.report.page.run_data import RunData
from branchtune.report.page.run_reference import divides
from branchtune.report.page.tree_nodes import tree_nodes
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import arrow, count, number, signed

OWNERS = ("adapters", "extras", "decoders", "backbone")


def run_titles(runs: Sequence[RunData]) -> list[str]:
    """Short names that tell the runs apart: the last part of each, or all of it."""
    if len(runs) == 1:
        return ["this run"]
    last = [run.results.name.rpartition("/")[2] for run in runs]
    if len(set(last)) == len(runs):
        return last
    whole = [run.results.name for run in runs]
    return whole if len(set(whole)) == len(runs) else [str(run.path) for run in runs]


def common_reference(runs: Sequence[RunData]) -> Reference | None:
    """What all of them are relative to, with the values that it had then; None where they have none or several."""
    known = next((run.reference for run in runs if run.reference is not None), None)
    return known if known is not None and all(divides(known, run.results) for run in runs) else None


def headline_table(runs: Sequence[RunData]) -> Cells:
    """Each task's headline metric beside the reference; with one run its gains, with several their delta_m alone.

    Raises:
        UserError: a run has a task without the metric that is the headline of it in the first run that has the task.
    """
    reference, titles = common_reference(runs), run_titles(runs)
    alone = len(runs) == 1 and runs[0].results.gains is not None
    before = ["reference"] if reference else []
    heading = ["task", "metric", *before, *titles, *(["gain %"] if alone else [])]
    body = []
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        owner = next(run.results for run in runs if task in run.tasks)
        metric = owner.headline[task]
        values = [number(run.results.value_of(task, metric)) for run in runs]
        base = [number(reference.metrics.get(task))] if reference else []
        gain = [signed((runs[0].results.gains or {}).get(task))] if alone else []
        body.append([task, f"{metric} {arrow(owner.higher_is_better[task])}", *base, *values, *gain])
    if any(run.results.delta_m is not None for run in runs):
        values = [signed(run.results.delta_m) for run in runs]
        body.append(["all", "Δm %", *(["0"] if reference else []), *([""] if alone else []), *values])
    return Cells("", heading, body)


def metrics_table(runs: Sequence[RunData]) -> Cells:
    """Every metric of every task, and its loss."""
    pairs = dict.fromkeys((task, key) for run in runs for task in run.tasks for key in run.results.metrics[task])
    body = [[task, key, *(_exact(run.results.metrics.get(task, {}).get(key)) for run in runs)] for task, key in pairs]
    return Cells("All metrics", ["task", "metric", *run_titles(runs)], body)


def cost_table(runs: Sequence[RunData]) -> Cells:
    """Trainable parameters by owner, work, time and memory; the reference's are those of all its models together."""
    reference = common_reference(runs)
    settings = reference.settings if reference else {}
    results = [run.results for run in runs]
    body: list[list[str]] = []

    def add(label: str, base: str, cells: Sequence[str]) -> None:
        body.append([label, *([base] if reference else []), *cells])

    theirs, macs = settings.get("parameters", {}), settings.get("macs", {})
    for owner in OWNERS:
        own = [r.parameters[owner] for r in results]
        if owner in ("adapters", "decoders") or theirs.get(owner) or any(own):
            add(f"trainable parameters: {owner}", _whole(theirs.get(owner)), [_whole(value) for value in own])
    add("trained inside the backbone, of its size", "–", [f"{_inside(run):.1%}" for run in runs])
    for part in ("backbone", "decoders"):
        add(f"MACs per image: {part}", count(macs.get(part)), [count(r.macs[part]) for r in results])
    passes = [f"{r.macs['backbone'] / r.macs['backbone_plain']:.2f}" for r in results]
    add("MACs of the backbone, in plain passes", "–", passes)
    add("ms per image, all tasks", number(settings.get("ms_per_image")), [number(r.ms_per_image) for r in results])
    add("training, seconds", _seconds(_per_seed(settings)), [_seconds(r.train_seconds) for r in results])
    memory = [_mebibytes(r.train_memory) for r in results]
    add("training, MiB of memory", _mebibytes(settings.get("train_memory")), memory)
    if any(run.affinity for run in runs):
        add("measuring affinity, seconds", "–", [_seconds(_measuring(run)) for run in runs])
    add("groups per level", "–", ["-".join(map(str, r.groups)) for r in results])
    return Cells("", ["", *(["reference"] if reference else []), *run_titles(runs)], body)


def node_table(run: RunData) -> Cells:
    """The tree's nodes, and what is in none: stem, the tasks' own streams of some families, decoders."""
    total = run.cost.macs
    body = [["stem", "all", "0", count(run.cost.stem_macs), f"{run.cost.stem_macs / total:.1%}", ""]]
    body += [
        [f"level {n.node.level}", n.tasks, f"{n.parameters:,}", count(n.macs), f"{n.share:.1%}", n.affinity or "–"]
        for n in sorted(tree_nodes(run), key=lambda n: n.node)
    ]
    for level, stream in enumerate(run.cost.streams):
        if stream.parameters:
            share = f"{stream.macs / total:.1%}"
            body.append([f"level {level}", "own streams", f"{stream.parameters:,}", count(stream.macs), share, ""])
    body += [["decoder", task, _whole(run.decoders.get(task)), "", "", ""] for task in run.tasks]
    return Cells("", ["node", "tasks", "parameters", "MACs", "share", "affinity"], body)


def _exact(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.5g}"


def _or_dash(write: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else write(value)


_whole = _or_dash(lambda value: f"{value:,}")
_seconds = _or_dash(lambda value: f"{value:,.0f}")
_mebibytes = _or_dash(lambda value: f"{value / 2**20:,.0f}")


def _per_seed(settings: dict) -> float | None:
    seconds, seeds = settings.get("train_seconds"), settings.get("seeds")
    return seconds / len(seeds) if seconds and seeds else None


def _measuring(run: RunData) -> float | None:
    return run.affinity.cost.seconds if run.affinity else None


def _inside(run: RunData) -> float:
    parameters = run.results.parameters
    inside = sum(parameters[owner] for owner in ("adapters", "extras", "backbone"))
    return inside / sum(parameters[owner] for owner in ("frozen", "extras", "backbone"))
