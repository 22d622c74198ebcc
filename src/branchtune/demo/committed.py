"""Results of the demo's configuration that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files

from branchtune.evaluation.references import Reference
from branchtune.run.directory import FREE_KEYS
from branchtune.run.results import Results
from branchtune.settings import Settings, resolved

# Keys in which the columns of one demo differ from each other, and how often the validation looks on.
COLUMN_KEYS = ("name", "method", "reference", "trainer.check_val_every_n_epoch")


def committed_results(settings: Settings) -> dict[str, Results]:
    """The committed columns by method; empty when `settings` is not the configuration that they were made with."""
    resource = files("branchtune") / "demo" / "results.json"
    if not resource.is_file():
        return {}
    content = json.loads(resource.read_text(encoding="utf-8"))
    if comparable(resolved(content["config"])) != comparable(settings.flat()):
        return {}
    return {method: Results.from_json(value, "demo/results.json") for method, value in content["columns"].items()}


def difference_to_reference(settings: Settings, reference: Reference) -> str | None:
    """The first key in which the reference's configuration differs, with both values; None where none does."""
    text = reference.settings.get("config")
    if not isinstance(text, str):
        return None
    theirs, ours = comparable(resolved(text)), comparable(settings.flat())
    for key in sorted({*theirs, *ours} - {"seed"}):
        if theirs.get(key) != ours.get(key) and not key.startswith("tasks."):
            return f"{key}={theirs.get(key)!r}, here {ours.get(key)!r}"
    return None


def comparable(flat: dict[str, object]) -> dict[str, object]:
    """A flattened configuration without the keys that do not change a column's numbers."""
    return {key: value for key, value in flat.items() if key not in (*FREE_KEYS, *COLUMN_KEYS)}
