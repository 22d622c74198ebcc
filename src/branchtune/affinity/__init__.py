"""Affinity: which tasks pull the shared parameters in the same direction, overall and level by level.

`measure_affinity` needs torch and is imported on first use; a stored `Affinity` is read and planned with without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from branchtune.affinity.matrix import Affinity, AffinityCost, Normalize, Source

if TYPE_CHECKING:
    from branchtune.affinity.measure import measure_affinity

__all__ = ["Affinity", "AffinityCost", "Normalize", "Source", "measure_affinity"]


def __getattr__(name: str) -> Any:
    if name != "measure_affinity":
        raise AttributeError(f"module 'branchtune.affinity' has no attribute {name!r}")
    from branchtune.affinity.measure import measure_affinity

    return measure_affinity
