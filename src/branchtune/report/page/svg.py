"""The small pieces that the drawings are made of: numbers as text, ticks, elements."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup


def element(name: str, content: object = "", **attributes: object) -> Markup:
    """`<name key="value">content</name>`; an underscore in a key becomes a dash, everything is escaped but Markup."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _text(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, content)


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    return element("text", content, x=x, y=y, **attributes)


def drawing(width: float, height: float, parts: Sequence[Markup], label: str, **attributes: object) -> Markup:
    """An SVG that scales with its column, at most to its own size; `label` says what a reader does not see."""
    box = f"0 0 {_text(width)} {_text(height)}"
    style = f"max-width: {_text(width)}px"
    attributes = {"viewBox": box, "style": style, "aria_label": label, "role": "img", **attributes}
    return element("svg", Markup("").join(parts), **attributes)


def colour(index: int) -> str:
    """The categorical colour of this number, which the style sheet defines for light and dark."""
    return f"var(--c{index % 10})"


def mixed(indices: Sequence[int]) -> str:
    """The mean of categorical colours: what belongs to one task is vivid, what many share is grey.

    Every colour is named once: Chromium takes twice as long for each further color-mix around another.
    """
    counts = Counter(colour(index) for index in indices)
    result, done = next(iter(counts)), 0
    for one, count in counts.items():
        if done:
            result = f"color-mix(in oklab, {result} {100 * done / (done + count):.1f}%, {one})"
        done += count
    return result


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float, digits: int = 3) -> str:
    """Three digits, or so many, without trailing zeros: 0.25, 12, 1.2e-05."""
    return f"{value + 0.0:.{digits}g}".replace("e-0", "e-").replace("e+0", "e")


def told_apart(values: Sequence[float]) -> list[str]:
    """The same in as many digits as it takes, for ticks that are close to each other: 0.0507, 0.05071."""
    for digits in range(3, 9):
        texts = [short(value, digits) for value in values]
        if len(set(texts)) == len(values):
            break
    return texts


def _text(value: object) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)
