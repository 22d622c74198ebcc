"""JSON files that users may lack, damage or point at by mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from branchtune.errors import UserError


def read_json(path: str | Path, *, missing: str, damaged: str) -> Any:
    """The content of a JSON file.

    Args:
        missing: what to do where there is no such file.
        damaged: what to do where it holds no JSON.

    Raises:
        UserError: it cannot be read, in one line that ends with the way out.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: {missing}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {damaged}") from error
