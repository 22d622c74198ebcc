"""Optional packages."""

from __future__ import annotations

import importlib.util

from branchtune.errors import UserError


def check_installed(what: str, extra: str, *packages: str) -> None:
    """Refuse to begin what needs packages that are not installed.

    Args:
        what: the purpose, as the beginning of the message.
        extra: of branchtune, which installs them.

    Raises:
        UserError: names the missing packages and the command.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install 'branchtune[{extra}]'")
