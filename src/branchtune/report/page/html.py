"""Sections -> one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from branchtune._version import __version__

LIMIT = 5_000_000  # bytes of the page


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        id: for links to it.
        title: above it.
        template: name of its template, without the suffix.
        data: what the template reads, under the name `data`.
        fitted: makes the data instead, from how many bytes all else leaves of the page's limit.
    """

    id: str
    title: str
    template: str
    data: Any = None
    fitted: Callable[[int], Any] | None = None


def render(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: of the page.
        facts: names and values below the title.
        sections: in their order.
    """
    texts = [Markup() if one.fitted else section_text(one.template, one.data) for one in sections]
    for index, one in enumerate(sections):
        if one.fitted:
            left = LIMIT - len(_page(title, facts, sections, texts).encode())
            texts[index] = section_text(one.template, one.fitted(left))
    return _page(title, facts, sections, texts)


def section_text(template: str, data: Any) -> Markup:
    """What a section of this template says of the data."""
    return Markup(_environment().get_template(f"{template}.html.j2").render(data=data))


def _page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section], texts: Sequence[Markup]) -> str:
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            facts=facts,
            sections=list(zip(sections, texts, strict=True)),
            version=__version__,
            css=_file("report.css"),
            script=_file("report.js"),
        )
    )


@cache
def _environment() -> Environment:
    loader = PackageLoader("branchtune.report.page")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _file(name: str) -> Markup:
    """A file of the package that is trusted as it is."""
    return Markup((files("branchtune.report.page") / "templates" / name).read_text(encoding="utf-8"))
