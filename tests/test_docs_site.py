"""The site builds without a warning, and a reader's browser is sent nowhere else."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from browser import needs_chromium, opened, screenshot, serious_violations

ROOT = Path(__file__).resolve().parents[1]
# Tables whose last columns a reader would have to scroll to.
HIDDEN = """[...document.querySelectorAll(".md-typeset__scrollwrap")]
  .filter((one) => one.scrollWidth > one.clientWidth)
  .map((one) => one.innerText.slice(0, 80))"""
# One of every kind, and the widest.
PAGES = ("index", "tutorial", "configuration", "tree", "results", "api/index", "api/model", "api/metrics")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None or find_spec("mkdocstrings_handlers") is None:
        pytest.skip("mkdocs-material or mkdocstrings is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, which drops the warnings before --strict counts them.
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_in_it(site: Path) -> None:
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).with_suffix(".html") for page in docs.rglob("*.md")} - {Path("results_head.html")}
    assert pages <= {page.relative_to(site) for page in site.rglob("*.html")}
    assert not (site / "results_head.html").exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", tag), f"{page.name}: {tag}"


def test_links_out_of_the_pages_lead_somewhere(site: Path) -> None:
    text = (site / "results.html").read_text(encoding="utf-8")
    targets = re.findall(r"(?:href|src)=\"?(repository/[^\s\">]+)", text)
    assert targets
    assert all((site / target).is_file() for target in targets)


def test_names_of_the_api_reference_lead_to_their_entries(site: Path) -> None:
    model, planning = ((site / "api" / f"{name}.html").read_text(encoding="utf-8") for name in ("model", "planning"))
    assert 'id="branchtune.TaskTree"' in model
    assert 'href="tasks.html#branchtune.Task"' in model  # of the signature
    assert 'href="#branchtune.extension.add_task"><code>extension.add_task</code>' in model  # of a docstring
    assert 'href="#branchtune.Affinity.corrected"><code>Affinity.corrected</code>' in planning


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_pages_are_readable_have_no_serious_finding_and_search_works(site: Path, width: int, dark: bool) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with opened(width, dark) as page:
            findings = {}
            for name in PAGES:
                page.goto(f"{address}/{name}.html")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (
                    f"{name} is wider than the screen"
                )
                if width > 1000:
                    assert page.evaluate(HIDDEN) == []
                screenshot(page, f"docs-{name.replace('/', '-')}-{width}-{'dark' if dark else 'light'}")
                findings[name] = serious_violations(page)
            assert not any(findings.values()), findings
            page.keyboard.press("/")
            page.keyboard.type("adapter_share")
            page.wait_for_selector(".md-search-result__item")
    finally:
        server.shutdown()
        server.server_close()
