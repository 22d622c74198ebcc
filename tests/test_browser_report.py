"""The report as a person sees it, in Chromium: light and dark, wide and narrow, by keyboard, on paper."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from branchtune.cli.main import main
from branchtune.run.results import Results
from browser import needs_chromium, opened, screenshot, serious_violations
from finished_run import run_of

pytestmark = [pytest.mark.browser, needs_chromium]

SCENES = Path(__file__).parents[1] / "results" / "scenes"
PAPER = 703  # pixels of CSS on A4 between the margins of the style sheet
# What a reader of a page that cannot be scrolled would not see.
BEYOND = """[...document.querySelectorAll("h2, h3, p, li, dd, th, td, img, svg, svg text")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def pages(finished: Path, compared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, run = tmp_path_factory.mktemp("reports"), run_of(finished)
    files = {"report": run / "report.html", "reports": folder / "several.html", "comparison": folder / "scenes.html"}
    files["comparison-with-runs"] = compared / "runs" / "versus" / "report.html"
    other = folder / "renamed"
    shutil.copytree(run, other)
    replace(Results.load(other / "results.json"), name="renamed").save(other / "results.json")
    assert main(["report", str(run), str(other), f"--out={files['reports']}", "--quiet"]) == 0
    assert main(["report", str(SCENES), f"--out={files['comparison']}", "--quiet"]) == 0
    return {name: path.as_uri() for name, path in files.items()}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_they_are_readable_and_have_no_serious_finding(pages: dict[str, str], width: int, dark: bool) -> None:
    with opened(width, dark) as page:
        for name, address in pages.items():
            page.goto(address)
            screenshot(page, f"{name}-{width}-{'dark' if dark else 'light'}")
            assert serious_violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_node_shows_its_details_by_pointer_and_by_keyboard(pages: dict[str, str]) -> None:
    with opened() as page:
        page.goto(pages["report"])
        node, tip = page.locator("#tree-0"), page.locator("#tree-0-tip")
        assert not tip.is_visible()
        node.focus()
        assert tip.is_visible()
        page.locator("#tree-1").hover()
        assert page.locator("#tree-1-tip").is_visible()


def test_the_rows_of_a_wide_table_keep_their_names_on_a_phone(pages: dict[str, str]) -> None:
    with opened(390) as page:
        page.goto(pages["comparison"])
        table = page.locator(".scroll").first
        scrolled = table.evaluate("(one) => { one.scrollLeft = 300; return one.scrollLeft; }")
        assert scrolled > 100
        name, box = table.locator("th[scope=row]").first.bounding_box(), table.bounding_box()
        assert name["x"] == pytest.approx(box["x"], abs=1)


def test_the_button_changes_the_colours(pages: dict[str, str]) -> None:
    with opened() as page:
        page.goto(pages["report"])
        colours = []
        for _ in range(3):
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.get_by_role("button", name="colours").press("Enter")
        assert colours[0] == colours[2] != colours[1]


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("name", ["report", "reports", "comparison-with-runs"])
def test_paper_loses_nothing_that_is_folded_or_wide(
    pages: dict[str, str], name: str, script: bool, tmp_path: Path
) -> None:
    with opened(PAPER, java_script_enabled=script) as page:
        page.goto(pages[name])
        page.emulate_media(media="print")
        screenshot(page, f"{name}-paper-{'script' if script else 'plain'}")
        folded = page.locator("details table")
        assert folded.count() >= 3
        for index in range(folded.count()):
            assert folded.nth(index).bounding_box()["height"] > 40
        assert page.evaluate(BEYOND) == []
        printed = page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        words = words_of(printed, tmp_path)
        for text in page.locator("h2, th, td").all_inner_texts() if words else ():
            assert "".join(text.split()) in words, text


def words_of(pdf: bytes, folder: Path) -> str:
    """The text of a PDF without spaces and line breaks; empty where Poppler's `pdftotext` is not installed."""
    if shutil.which("pdftotext") is None:
        return ""
    file = folder / "printed.pdf"
    file.write_bytes(pdf)
    done = subprocess.run(["pdftotext", "-raw", str(file), "-"], capture_output=True, check=True)
    return "".join(done.stdout.decode().split())
