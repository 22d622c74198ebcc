"""The sections that pages of one run, of several and of comparisons share: trees, affinity, gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from branchtune.pictures.colour import error_gradient
from branchtune.report.page.dendrogram_svg import dendrogram_drawing
from branchtune.report.page.gallery import Gallery, pictures
from branchtune.report.page.heat import heat_maps, plain_cosines
from branchtune.report.page.html import LIMIT as PAGE
from branchtune.report.page.html import Section, section_text
from branchtune.report.page.picture_data import LIMIT, SIDES, PictureWriter
from branchtune.report.page.run_data import RunData
from branchtune.report.page.tables import node_table
from branchtune.report.page.tree_svg import tree_drawing
from branchtune.tables.cells import Cells


def tree_section(title: str, runs: Sequence[RunData], titles: Sequence[str]) -> Section:
    """A drawing and a table of the nodes of every run's tree."""
    names = ["tree"] if len(runs) == 1 else [f"tree{index}" for index in range(len(runs))]
    return Section("tree", title, "tree", [_tree(*one) for one in zip(runs, titles, names, strict=True)])


def _tree(run: RunData, title: str, name: str) -> dict[str, Any]:
    return {
        "title": title,
        "name": run.results.name,
        "drawing": tree_drawing(run, name),
        "table": node_table(run),
        "ratio": f"{run.cost.ratio:.2f}",
        "trains": run.cost.parameters > 0,
    }


def affinity_section(title: str, run: RunData) -> Section:
    """Heat maps, the dendrogram, and the measured numbers; without affinity it says that there is none.

    Args:
        title: of the section.
        run: its affinity; the tree of "random" and "anti", and one given by hand, is no cut of the dendrogram.
    """
    affinity = run.affinity
    if affinity is None:
        return Section("affinity", title, "affinity", None)
    (heading, rows, left_out), maps = plain_cosines(affinity), heat_maps(affinity)
    data = {
        "maps": maps,
        "dendrogram": dendrogram_drawing(affinity) if len(affinity.tasks) > 1 else None,
        "table": Cells("", heading, rows),
        "left_out": left_out,
        "pictures": any(one.picture for one in maps),
        "affinity": affinity,
        "origin": _origin_of_tree(run),
        "unclear": any(cell.unclear for one in maps for row in one.rows for cell in row),
    }
    return Section("affinity", title, "affinity", data)


def _origin_of_tree(run: RunData) -> str:
    if run.results.method in ("random", "anti"):
        return "control"
    return "planned" if run.config.tree.levels is None else "hand"


def gallery_section(title: str, gallery: Gallery | str) -> Section:
    """Best and worst cases, as many and as large as fit into the page, or why there are none."""
    if isinstance(gallery, str):
        return Section("gallery", title, "gallery", {"missing": gallery})
    return Section("gallery", title, "gallery", fitted=lambda room: gallery_within(gallery, room))


def gallery_within(gallery: Gallery, room: int) -> dict[str, Any]:
    """What the template shows: smaller pictures first, then fewer cases.

    Args:
        gallery: all cases.
        room: bytes that text and pictures may have together.
    """
    for count in range(len(gallery.best), 0, -1):
        shown = replace(gallery, best=gallery.best[:count], worst=gallery.worst[:count])
        data = {"missing": None, "gallery": shown, "gradient": error_gradient(), "whole": gallery, "smaller": None}
        text = len(section_text("gallery", data | {"uri": lambda picture: "", "smaller": SIDES[0]}).encode())
        uri = PictureWriter(pictures(shown), min(LIMIT, room - text))
        if uri.fits:
            return data | {"uri": uri, "smaller": uri.side if uri.reduced else None}
    tasks = len(gallery.best[0].panels)
    return {"missing": f"the pictures of {tasks} tasks are too many for a page of {PAGE // 10**6} MB."}
