"""docs/results.md says what the committed raw results say."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from pathlib import Path

import pytest

from branchtune.comparison.pareto import drawn
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Spread
from branchtune.config import RunConfig
from branchtune.settings import Settings
from project_scripts import script

RESULTS = Path(__file__).parents[1] / "results"


def test_the_page_is_not_stale() -> None:
    module = script("results_page")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `python scripts/results_page.py`"


def test_every_relative_link_of_the_page_and_of_the_results_leads_somewhere() -> None:
    module = script("results_page")
    for page in (module.PAGE, *module.ROOT.glob("results/**/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("comparison.json")), ids=lambda path: path.parent.name)
def test_the_plot_is_not_stale(path: Path) -> None:
    plot = path.with_name("pareto.svg").read_text(encoding="utf-8")
    found = re.search(r"<dc:description>(.*?)</dc:description>", plot, re.DOTALL)
    assert found, "run `branchtune compare` again, or branchtune.comparison.pareto.pareto"
    assert found[1] == drawn(Comparison.load(path))


@pytest.mark.parametrize("name", ["scenes", "nyud"])
def test_committed_results_have_the_committed_configuration(name: str) -> None:
    committed = Comparison.load(RESULTS / name / "comparison.json")
    keys = {field.name for field in dataclasses.fields(RunConfig)}
    words = shlex.split(committed.command)
    overrides = [word for word in words if word.startswith("--") and re.split(r"[.=]", word[2:])[0] in keys]
    script("check_results").check_configuration(Settings.load(RESULTS.parent / words[2], overrides), committed)


@pytest.mark.parametrize(
    ("mean", "deviation", "said"),
    [
        (1.0, 0.1, "holds"),
        (0.1, 1.0, "in the mean only"),
        (1.0, math.nan, "in the mean only"),
        (-0.1, 1.0, "does not hold"),
        (0.0, 0.0, "does not hold"),
    ],
)
def test_a_claim_holds_where_the_whole_interval_is_above_zero(mean: float, deviation: float, said: str) -> None:
    assert script("results_page").held(Spread(mean, deviation, 1 if math.isnan(deviation) else 3)) == said


@pytest.mark.parametrize("folder", ["nyud", "nyud/weight_1"])
def test_the_table_of_nyu_is_what_its_script_prints(folder: str) -> None:
    page = RESULTS / folder / "README.md"
    assert script("nyud_dilution").table(page.parent) in page.read_text(encoding="utf-8")
