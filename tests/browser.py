"""Debian's Chromium, driven by Playwright; screenshots go to a folder that git ignores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
# For a machine without a network: nothing is looked up at start.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOTS = Path(__file__).parents[1] / "runs" / "screenshots"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: make test-browser installs Debian's")


@contextmanager
def opened(width: int = 1280, dark: bool = False, *, refused: bool = False, **context: Any) -> Iterator[Any]:
    """A new page of this width, light or dark; it fails the test if the page's scripts raised or logged an error.

    Args:
        refused: the server is expected to refuse something, which Chromium logs as an error of its own.
        context: more arguments of Playwright's `new_context`.
    """
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        scheme = "dark" if dark else "light"
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **context).new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        yield page
        browser.close()
    if refused:
        problems = [text for text in problems if not text.startswith("Failed to load resource")]
    assert not problems, problems


def screenshot(page: Any, name: str) -> Path:
    """The whole page as `runs/screenshots/NAME.png`."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


def serious_violations(page: Any) -> list[str]:
    """What axe calls serious or critical: rule, and the first element that breaks it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
