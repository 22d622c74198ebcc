"""The gallery keeps within the room that the rest of the page leaves, and says what that cost."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from branchtune.report.page.gallery import Gallery, pictures
from branchtune.report.page.html import section_text
from branchtune.report.page.picture_data import SIDES, data_uri
from branchtune.report.page.sections import gallery_within
from many_tasks import noisy_gallery


@pytest.mark.parametrize(("share", "cases"), [(1.0, 3), (0.7, 2), (0.1, 0)])
def test_a_gallery_has_as_many_cases_as_fit(share: float, cases: int) -> None:
    gallery = noisy_gallery(4, 60, 80)
    everything = len(pictures(gallery)) * len(data_uri(Image.fromarray(gallery.best[0].image), SIDES[-1]))
    text = len(section_text("gallery", gallery_within(gallery, 10**7) | {"uri": lambda picture: ""}).encode())
    room = int(share * (everything + text)) + 100  # of the note
    data = gallery_within(gallery, room)
    assert len(section_text("gallery", data).encode()) <= room
    if cases:
        assert [case.id for case in data["gallery"].best] == ["0", "1", "2"][:cases]
        assert [case.id for case in data["gallery"].worst] == ["3", "4", "5"][:cases]
        assert data["uri"](gallery.worst[0].image).startswith("data:image/jpeg")
    else:
        assert data["missing"] == "the pictures of 4 tasks are too many for a page of 5 MB."


def test_a_gallery_that_is_cut_says_so() -> None:
    gallery = noisy_gallery(4, 300, 400)
    assert "To keep" not in said(noisy_gallery(4, 60, 80), 10**7)
    assert re.search(r"To keep this page below 5 MB, pictures have at most \d+ pixels a side\.", said(gallery, 10**6))
    both = r"pictures have at most \d+ pixels a side, and ([12]) of 3 best and \1 of 3 worst images are shown\."
    assert re.search(both, said(gallery, 70_000))


def said(gallery: Gallery, room: int) -> str:
    return " ".join(section_text("gallery", gallery_within(gallery, room)).split())
