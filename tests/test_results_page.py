"""docs/results.md says what the committed raw results say."""

from __future__ import annotations

import re

from project_scripts import script


def test_the_page_is_not_stale() -> None:
    module = script("results_page")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `python scripts/results_page.py`"


def test_every_relative_link_of_the_page_and_of_the_results_leads_somewhere() -> None:
    module = script("results_page")
    for page in (module.PAGE, *module.ROOT.glob("results/**/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
