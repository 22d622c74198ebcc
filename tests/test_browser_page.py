"""The page of `branchtune serve`, used as a person uses it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from branchtune.serving.app import create_app
from branchtune.serving.examples import Example
from branchtune.serving.limits import Limits
from branchtune.serving.served import Served
from browser import needs_chromium, opened, screenshot, serious_violations
from running_server import running
from served_model import encoded, image_level_served, loader, small_served

pytestmark = [pytest.mark.browser, needs_chromium]
EVIL = "<img src=x onerror=alert(1)>.png"


def picture(seed: int) -> bytes:
    """Large soft spots of colour."""
    small = np.random.default_rng(seed).integers(40, 220, size=(3, 4, 3), dtype=np.uint8)
    return encoded(Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    served = small_served(tmp_path_factory.mktemp("model"))
    examples = [Example("room.png", picture(1)), Example(EVIL, picture(2))]
    app = create_app(loader(dataclasses.replace(served, examples=examples)), Limits(max_bytes=500_000))
    with running(app) as address:
        yield f"{address}/"


def upload(page: Any, name: str, data: bytes) -> None:
    page.get_by_label("Choose a file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def test_a_person_tries_the_model(address: str) -> None:
    with opened(refused=True) as page:
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        assert page.locator("#total").text_content() == "7 of 7 nodes needed"
        upload(page, "photo.png", picture(0))
        page.get_by_text("photo.png, 120 pixels high and 160 wide").wait_for()
        assert page.locator("figure").count() == 3
        assert page.locator("figure img").evaluate_all("images => images.every(i => i.naturalWidth === 160)")

        page.get_by_role("checkbox", name="c", exact=True).uncheck()
        page.get_by_text("ms for 2 tasks, 5 of 7 nodes needed").wait_for()
        assert page.locator("#tree g.off .node").count() == 2
        page.locator("figure[data-task=c]").wait_for(state="detached")
        page.get_by_text("Times as a table").click()
        assert page.locator("#times tr").count() == 1 + 5 + 2 + 1

        page.get_by_label("opacity of a", exact=True).fill("20")
        assert page.get_by_alt_text("a of photo.png").evaluate("image => image.style.opacity") == "0.2"
        page.get_by_label("Opacity of all").fill("50")
        assert page.get_by_alt_text("a of photo.png").evaluate("image => image.style.opacity") == "0.5"

        with page.expect_download() as download:
            page.get_by_role("button", name="Download a as npy").click()
        assert download.value.suggested_filename == "photo.a.npy"
        assert np.load(download.value.path()).shape == (120, 160)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download b as png").click()
        with Image.open(download.value.path()) as drawn:
            assert drawn.size == (160, 120)

        for name in ("a", "b"):
            page.get_by_role("checkbox", name=name, exact=True).uncheck()
        page.get_by_text("Switch on at least one task.").wait_for()
        assert page.locator("figure").count() == 0
        page.get_by_role("checkbox", name="c", exact=True).check()
        page.locator("figure[data-task=c]").wait_for()


def test_scores_of_classes_are_there_to_download(address: str) -> None:
    with opened() as page:
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        upload(page, "photo.png", picture(0))
        page.locator("figure").nth(2).wait_for()
        buttons = page.get_by_role("button", name="as scores.npy")
        assert buttons.count() == 1  # of the three tasks one has classes
        with page.expect_download() as download:
            buttons.click()
        assert download.value.suggested_filename == "photo.c.scores.npy"
        scores = np.load(download.value.path())
        assert scores.shape == (3, 120, 160)
        assert scores.dtype == np.float32
        with page.expect_download() as download:
            page.get_by_role("button", name="Download c as npy").click()
        np.testing.assert_array_equal(np.load(download.value.path()), scores.argmax(0))


DROPPED = """([bytes, name, type]) => {
  const transfer = new DataTransfer();
  if (bytes) transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  return transfer;
}"""


def drop(page: Any, data: bytes | None, name: str = "", kind: str = "image/png") -> None:
    """What Chromium sends where a file, or None for a piece of text, is dragged over the outputs and let go there."""
    transfer = page.evaluate_handle(DROPPED, [None if data is None else list(data), name, kind])
    outputs = page.locator("#outputs")
    outputs.dispatch_event("dragenter", {"dataTransfer": transfer})
    outputs.dispatch_event("dragover", {"dataTransfer": transfer})
    assert "dragging" in page.locator("body").get_attribute("class")
    outputs.dispatch_event("drop", {"dataTransfer": transfer})
    assert "dragging" not in page.locator("body").get_attribute("class")


def test_an_image_is_dropped_anywhere(address: str) -> None:
    with opened(refused=True) as page:
        page.goto(address)
        page.get_by_role("button", name="example room.png").click()
        page.get_by_alt_text("a of room.png").wait_for()
        drop(page, picture(0), "dropped.png")
        page.get_by_text("dropped.png, 120 pixels high and 160 wide").wait_for()
        page.get_by_alt_text("a of dropped.png").wait_for()
        assert page.locator("#examples button[aria-pressed=true]").count() == 0
        drop(page, None)
        drop(page, b"this is a text", "notes.txt", "text/plain")
        page.get_by_role("alert").get_by_text("notes.txt: this file is no image that can be read here").wait_for()
        page.get_by_text("The outputs are those of dropped.png.").wait_for()
        page.get_by_alt_text("a of dropped.png").wait_for()


def test_a_drag_that_leaves_the_page_or_comes_before_the_model_is_no_drop(tmp_path: Path) -> None:
    loaded = threading.Event()
    served = small_served(tmp_path)

    def late() -> Served:
        loaded.wait(60)
        return served

    with running(create_app(late), ready=False) as address, opened(refused=True) as page:
        page.goto(address)
        page.get_by_text("The model is loading").wait_for()
        drop(page, picture(0), "early.png")
        page.get_by_role("status").get_by_text("The model is loading").wait_for()
        page.locator("body").dispatch_event("dragover")
        page.locator("body").dispatch_event("dragleave")
        assert "dragging" not in page.locator("body").get_attribute("class")
        loaded.set()
        page.get_by_text("Choose an image, or drop one.").wait_for()
        assert page.locator("figure").count() == 0


def test_what_is_refused_is_said_and_the_page_goes_on(address: str) -> None:
    with opened(refused=True) as page:
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        alert = page.get_by_role("alert")
        upload(page, "notes.jpg", b"this is a text")
        alert.get_by_text("notes.jpg: this file is no image that can be read here").wait_for()
        screenshot(page, "page-refused")
        assert serious_violations(page) == []
        upload(page, "large.png", b"0" * 600_000)
        alert.get_by_text("large.png has 0.6 MB, more than the 0.5 MB that this server takes.").wait_for()
        upload(page, "photo.png", picture(0))
        page.locator("figure").first.wait_for()
        assert alert.is_hidden()
        upload(page, "notes.jpg", b"this is a text")
        page.get_by_text("The outputs are those of photo.png.").wait_for()
        page.get_by_role("checkbox", name="c", exact=True).uncheck()  # of the image that is still shown
        page.locator("figure[data-task=c]").wait_for(state="detached")
        assert alert.is_hidden()
        page.get_by_role("button", name="example <img").click()
        page.get_by_text(f"{EVIL}, 120 pixels high").wait_for()
        assert page.locator("figcaption img, #status img").count() == 0


def test_outputs_keep_their_image_while_the_next_one_is_computed(address: str) -> None:
    with opened() as page:
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        upload(page, "photo.png", picture(0))
        page.locator("figure").nth(2).wait_for()
        held: list[Any] = []
        page.route("**/predict", lambda route: held.append(route))
        page.get_by_role("button", name="example room.png").click()
        page.get_by_text("Computing 3 tasks").wait_for()
        page.get_by_alt_text("a of photo.png").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download b as png").click()
        assert download.value.suggested_filename == "photo.b.png"
        page.get_by_role("button", name="Download a as npy").click()
        page.wait_for_timeout(200)
        assert len(held) == 2
        images = [route.request.post_data_buffer for route in held]
        assert [picture(1) in image for image in images] == [True, False]
        assert [picture(0) in image for image in images] == [False, True]
        with page.expect_download() as download:
            held[1].continue_()
        assert download.value.suggested_filename == "photo.a.npy"
        held[0].continue_()
        page.get_by_text("room.png, 120 pixels high and 160 wide").wait_for()
        page.get_by_alt_text("a of room.png").wait_for()


def test_a_refused_toggle_leaves_the_outputs(address: str) -> None:
    with opened(refused=True) as page:
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        upload(page, "photo.png", picture(0))
        page.locator("figure").nth(2).wait_for()
        page.route("**/predict", lambda route: route.fulfill(status=503, json={"detail": "too many requests wait"}))
        page.get_by_role("checkbox", name="c", exact=True).uncheck()
        page.get_by_role("alert").get_by_text("photo.png: too many requests wait").wait_for()
        page.get_by_text("The outputs are those from before.").wait_for()
        assert page.locator("figure").count() == 3


def test_a_value_that_is_no_number_is_a_dash_and_hides_no_other_task(tmp_path: Path) -> None:
    with running(create_app(loader(image_level_served(tmp_path)))) as address, opened() as page:

        def without_two(route: Any) -> None:
            answer = route.fetch().json()
            answer["tasks"]["scene"]["values"] = [None, 0.25, None, 0.5]
            route.fulfill(json=answer)

        page.route("**/predict", without_two)
        page.goto(address)
        page.get_by_text("Choose an image, or drop one.").wait_for()
        upload(page, "photo.png", picture(0))
        page.locator("figure[data-task=depth] img").first.wait_for()
        shown = page.locator("figure[data-task=scene] li").all_text_contents()
        assert shown == ["class 3: 0.500", "class 1: 0.250", "class 0: –", "class 2: –"]


CUT_OFF = "name => { fetch = async () => ({ ok: true, json: () => Promise.reject(new DOMException('', name)) }); }"


def test_an_answer_that_is_cut_off_is_none(address: str) -> None:
    with opened() as page:
        page.goto(address)
        page.get_by_role("button", name="example room.png").wait_for()
        for name, said in (("AbortError", "AbortError: "), ("NetworkError", "Error: The server's answer broke off.")):
            page.evaluate(CUT_OFF, name)
            assert page.evaluate("ask('model').catch((error) => `${error.name}: ${error.message}`)") == said


def test_the_keyboard_suffices(address: str) -> None:
    with opened() as page:
        page.goto(address)
        page.get_by_role("button", name="example room.png").wait_for()
        reached = []
        for _ in range(9):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("document.activeElement.id || document.activeElement.textContent || 'example'")
            )
            if page.get_by_role("button", name="example room.png").evaluate("b => b === document.activeElement"):
                page.keyboard.press("Enter")
                page.locator("figure").nth(2).wait_for()
        assert "file" in reached
        box = page.get_by_role("checkbox", name="b", exact=True)
        box.focus()
        page.keyboard.press("Space")
        page.locator("figure[data-task=b]").wait_for(state="detached")
        slider = page.get_by_label("opacity of a", exact=True)
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert slider.input_value() == "74"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_readable(address: str, width: int, dark: bool) -> None:
    name = f"{width}-{'dark' if dark else 'light'}"
    with opened(width, dark) as page:
        page.goto(address)
        page.get_by_role("button", name="example room.png").click()
        page.locator("figure").nth(2).wait_for()
        page.get_by_role("checkbox", name="a", exact=True).uncheck()
        page.locator("figure[data-task=a]").wait_for(state="detached")
        screenshot(page, f"page-{name}")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"{address}docs/")
        screenshot(page, f"page-docs-{name}")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
