"""The naive twin of a frozen layer and its update as one step of the graph: autograd takes every step alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

from branchtune.frozen_linear import FrozenCall


def step_by_step() -> AbstractContextManager[object]:
    """Inside, no layer and update are taken together."""
    return patch.object(FrozenCall, "of", lambda *_: None)
