"""The tree as a drawing: levels from left to right, thick where much trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from markupsafe import Markup

from branchtune.report.page.run_data import RunData
from branchtune.report.page.svg import drawing, element, mixed, text
from branchtune.report.page.tree_nodes import TreeNode, tree_nodes
from branchtune.tables.numbers import count

STEM, WIDTH, PITCH, ROW, TOP = 60.0, 112.0, 166.0, 64.0, 30.0
GAP = PITCH - WIDTH
# Thickness of the node that trains most, and of one that trains nothing.
THICK, THIN = 36.0, 4.0
# Of the text of a tip: from line to line, and the width of a letter.
LINE, LETTER = 15.0, 6.6


@dataclass(frozen=True)
class _Place:
    """Left edge, middle and thickness of what is drawn as a box."""

    x: float
    y: float
    thickness: float
    width: float = WIDTH

    @property
    def right(self) -> float:
        return self.x + self.width


def tree_drawing(run: RunData, name: str) -> Markup:
    """The drawing of a run's tree.

    Args:
        run: the run.
        name: unique on the page, for the ids.
    """
    nodes = tree_nodes(run)
    levels = run.model.tree.num_levels
    last = [node for node in nodes if node.node.level == levels - 1]
    order = [task for node in last for task in node.node.tasks]
    rows = {task: TOP + ROW * (index + 0.5) for index, task in enumerate(order)}
    numbers = {task: index for index, task in enumerate(run.tasks)}
    most = max((node.parameters for node in nodes), default=0)
    places = {node.node.key: _place(node, rows, most) for node in nodes}
    height = TOP + ROW * len(order) + 6
    stem = _Place(2.0, sum(rows.values()) / len(rows), 26.0, STEM)
    end = STEM + GAP + PITCH * levels
    width = end + 126

    def fill(tasks: Sequence[str]) -> str:
        return mixed([numbers[task] for task in tasks])

    links, boxes, tips, rules = [], [], [], []
    for node in nodes:
        parent = _parent(node, nodes)
        start = stem if parent is None else places[parent.node.key]
        links.append(_link(start, places[node.node.key], fill(node.node.tasks)))
    for task in order:
        source = next(node for node in last if task in node.node.tasks)
        target = _Place(end, rows[task], 26.0, 120.0)
        links.append(_link(places[source.node.key], target, fill([task])))
        boxes.append(_decoder(target, task, run.decoders.get(task), fill([task])))
    boxes.append(_stem(stem, run.cost.stem_macs / run.cost.macs))
    for index, node in enumerate(nodes):
        key, lines = f"{name}-{index}", _details(node)
        boxes.append(_box(places[node.node.key], node, key, fill(node.node.tasks), lines))
        tips.append(_tip(places[node.node.key], lines, f"{key}-tip", width, height))
        rules.append(f"#{key}:is(:hover, :focus) ~ #{key}-tip {{ visibility: visible }}")
    heads = [text(2, 14, "stem", class_="head")]
    heads += [text(_left(level), 14, f"level {level}", class_="head") for level in range(levels)]
    heads.append(text(end, 14, "decoders", class_="head"))
    style = element("style", Markup("\n".join(rules)))
    label = f"tree of {len(order)} tasks over {levels} levels; the table below says the same"
    return drawing(width, height, [style, *heads, *links, *boxes, *tips], label, class_="tree", role="group")


def thickness(parameters: int, most: int) -> float:
    """In proportion to the adapter parameters, so that areas compare; a hair line where nothing trains."""
    return THIN if parameters == 0 else max(THIN, THICK * parameters / most)


def _left(level: int) -> float:
    return STEM + GAP + PITCH * level


def _place(node: TreeNode, rows: dict[str, float], most: int) -> _Place:
    middle = sum(rows[task] for task in node.node.tasks) / len(node.node.tasks)
    return _Place(_left(node.node.level), middle, thickness(node.parameters, most))


def _parent(node: TreeNode, nodes: Sequence[TreeNode]) -> TreeNode | None:
    own = set(node.node.tasks)
    above = (n for n in nodes if n.node.level == node.node.level - 1 and own <= set(n.node.tasks))
    return next(above, None)


def _link(start: _Place, end: _Place, stroke: str) -> Markup:
    half = (end.x - start.right) / 2
    path = f"M{start.right:g} {start.y:g} c{half:g} 0 {half:g} {end.y - start.y:g} {2 * half:g} {end.y - start.y:g}"
    return element("path", d=path, class_="link", style=f"stroke: {stroke}")


def _rectangle(place: _Place, **attributes: object) -> Markup:
    top = place.y - place.thickness / 2
    corner = min(4.0, place.thickness / 2)
    return element("rect", x=place.x, y=top, width=place.width, height=place.thickness, rx=corner, **attributes)


def _box(place: _Place, node: TreeNode, key: str, fill: str, lines: Sequence[str]) -> Markup:
    below = place.y + place.thickness / 2 + 13
    label = f"{count(node.parameters)} · {node.share:.0%}"
    parts = [
        _rectangle(place, class_="box", style=f"fill: {fill}"),
        text(place.x, below, label, class_="small"),
        # What reacts to the pointer, also where the box is thin.
        element("rect", x=place.x, y=place.y - 20, width=place.width, height=40.0, class_="area"),
    ]
    said = "; ".join(lines)
    return element("g", Markup("").join(parts), id=key, class_="node", tabindex=0, role="img", aria_label=said)


def _stem(place: _Place, share: float) -> Markup:
    below = text(place.x, place.y + place.thickness / 2 + 13, f"{share:.0%}", class_="small")
    return _rectangle(place, class_="outline") + below


def _decoder(place: _Place, task: str, parameters: int | None, stroke: str) -> Markup:
    parts = [
        _rectangle(place, class_="outline", style=f"stroke: {stroke}"),
        text(place.x + 8, place.y + 4, task if len(task) <= 14 else f"{task[:13]}…"),
        text(place.x, place.y + 26, count(parameters), class_="small"),
    ]
    return Markup("").join(parts)


def _details(node: TreeNode) -> list[str]:
    lines = [
        f"level {node.node.level}: {node.tasks}",
        f"{node.parameters:,} adapter parameters",
        f"{count(node.macs)} MACs per image, {node.share:.1%} of backbone and adapters",
    ]
    return [*lines, f"mean corrected affinity {node.affinity}"] if node.affinity else lines


def _tip(place: _Place, lines: Sequence[str], key: str, width: float, height: float) -> Markup:
    """Inside the drawing, with as many lines as it takes."""
    most = int((width - 4 - 20) / LETTER)
    shown = [part for line in lines for part in wrap(line, most, break_on_hyphens=False)]
    wide = max(map(len, shown)) * LETTER + 20
    tall = LINE * len(shown) + 12
    x = max(2.0, min(place.x, width - wide - 2))
    below = place.y + place.thickness / 2 + 20
    y = below if below + tall <= height else place.y - place.thickness / 2 - tall - 6
    y = max(2.0, min(y, height - tall - 2))
    box = element("rect", x=x, y=y, width=wide, height=tall, rx=4)
    written = [text(x + 10, y + LINE * (index + 1) + 2, line) for index, line in enumerate(shown)]
    return element("g", Markup("").join([box, *written]), id=key, class_="tip", aria_hidden="true")
