"""The reference of a run, as long as the run's gains are those over it."""

from __future__ import annotations

import math
from pathlib import Path

from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.run.packaged import packaged_reference
from branchtune.run.results import Results


def run_reference(name: str | None, results: Results) -> tuple[Reference | None, str | None]:
    """What the numbers of a run stand beside; where it has a reference that cannot, None and why.

    Args:
        name: of the run's configuration; a relative path is one from the current folder.
        results: of the run.
    """
    if name is None:
        return None, None
    try:
        reference = packaged_reference(name) or Reference.load(name)
    except UserError as error:
        if Path(name).is_absolute() or Path(name).exists():
            return None, str(error)
        return None, f"{name} is not in the current folder: make the report in the folder that the run was trained in"
    if not divides(reference, results):
        return None, f"{name} has changed since the gains were computed: `branchtune evaluate` computes those over it"
    return reference, None


def divides(reference: Reference, results: Results) -> bool:
    """Whether it is what the gains of the results are relative to, with the values that it had then."""
    if reference.id != results.reference:
        return False
    try:
        gains = results.compared_with(reference).gains
    except UserError:
        return False
    if gains is None or results.gains is None:
        return gains is results.gains
    return gains.keys() == results.gains.keys() and all(
        math.isclose(gain, results.gains[task], rel_tol=1e-9, abs_tol=1e-9) for task, gain in gains.items()
    )
