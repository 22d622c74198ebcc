"""Output where the terminal's encoding has no arrows, Greek letters or lines: spelled in ASCII, never an error."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

_NAME = "branchtune.ascii"
_SPELLED = {"↑": "^", "↓": "v", "Δ": "delta_", "±": "+-", "−": "-", "×": "x", "─": "-", "━": "-", "│": "|", "…": "..."}


def spell_out(stream: TextIO) -> None:
    """Let a stream write any text, whatever its encoding."""
    if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
        codecs.register_error(_NAME, _spelled)
        stream.reconfigure(errors=_NAME)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_SPELLED.get(letter, "?") for letter in text), error.end
