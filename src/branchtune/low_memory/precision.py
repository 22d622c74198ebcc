"""The precisions that weights can be stored in; without torch, for the command line."""

from __future__ import annotations

from typing import Literal

Precision = Literal["bfloat16", "int8"]
