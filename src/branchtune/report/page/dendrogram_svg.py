"""The dendrogram that the planner cuts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from branchtune.affinity import Affinity
from branchtune.planning.dendrogram import merges
from branchtune.report.page.svg import drawing, element, short, text, ticks

WIDTH, ROW, TOP = 330.0, 26.0, 8.0
# Left of the brackets stand the names: so much for a letter; those of more letters are cut.
LEAST, LETTER, LETTERS = 110.0, 7.5, 28


def dendrogram_drawing(affinity: Affinity) -> Markup:
    """Tasks on the left; a bracket joins two groups at their mean distance 1 - corrected affinity."""
    joined = merges(affinity.corrected())
    order = _leaves(len(affinity.tasks), joined)
    place = {leaf: (0.0, TOP + ROW * (row + 0.5)) for row, leaf in enumerate(order)}
    furthest = max([distance for _, _, distance in joined if distance > 0], default=1.0)
    left = max(LEAST, 14 + LETTER * min(LETTERS, max(map(len, affinity.tasks))))
    parts = [_name(left - 8, place[leaf][1] + 4, affinity.tasks[leaf]) for leaf in order]
    bottom = TOP + ROW * len(order)

    def x(distance: float) -> float:
        return left + WIDTH * max(0.0, distance) / furthest

    for step, (a, b, distance) in enumerate(joined):
        (near, upper), (far, lower) = place[a], place[b]
        path = f"M{x(near):.1f} {upper:g} H{x(distance):.1f} V{lower:g} H{x(far):.1f}"
        parts.append(element("path", d=path, class_="bracket"))
        place[len(order) + step] = (distance, (upper + lower) / 2)
    parts.append(element("path", d=f"M{left:g} {bottom:g} h{WIDTH:g}", class_="axis"))
    for tick in ticks(0, furthest):
        parts.append(text(x(tick), bottom + 16, short(tick), class_="small", text_anchor="middle"))
    parts.append(text(left + WIDTH / 2, bottom + 34, "1 − affinity", class_="small", text_anchor="middle"))
    said = ", then ".join(
        f"{_names(affinity, joined, a)} with {_names(affinity, joined, b)} at {short(d)}" for a, b, d in joined
    )
    return drawing(left + WIDTH + 16, bottom + 42, parts, f"dendrogram: {said or 'one task'}")


def _name(x: float, y: float, task: str) -> Markup:
    shown = text(x, y, task if len(task) <= LETTERS else f"{task[: LETTERS - 1]}…", text_anchor="end")
    return element("g", element("title", task) + shown)


def _leaves(tasks: int, joined: Sequence[tuple[int, int, float]]) -> list[int]:
    """The tasks in an order in which no bracket crosses another."""

    def below(group: int) -> list[int]:
        if group < tasks:
            return [group]
        a, b, _ = joined[group - tasks]
        return below(a) + below(b)

    return below(tasks + len(joined) - 1) if joined else list(range(tasks))


def _names(affinity: Affinity, joined: Sequence[tuple[int, int, float]], group: int) -> str:
    tasks = len(affinity.tasks)
    if group < tasks:
        return affinity.tasks[group]
    a, b, _ = joined[group - tasks]
    return f"{_names(affinity, joined, a)} + {_names(affinity, joined, b)}"
