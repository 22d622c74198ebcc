"""References that ship with the package, by name."""

from __future__ import annotations

from importlib.resources import as_file, files

from branchtune.evaluation.published import published_reference
from branchtune.evaluation.references import Reference


def packaged_reference(name: str) -> Reference | None:
    """The packaged reference of this name, or None where there is none.

    Those trained with this package are files in its own format; `<table>_single_task` comes from the published tables.
    """
    if not name.replace("_", "").isalnum():
        return None
    resource = files("branchtune") / "references" / f"{name}.json"
    if not resource.is_file():
        return published_reference(name)
    with as_file(resource) as path:
        return Reference.load(path)
