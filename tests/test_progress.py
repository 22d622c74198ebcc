"""Where progress goes: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from branchtune.progress import SECONDS_BETWEEN_LINES, Reporter


def reporter(terminal: bool, quiet: bool = False) -> tuple[Reporter, io.StringIO]:
    text = io.StringIO()
    return Reporter(quiet, Console(file=text, force_terminal=terminal, width=100, highlight=False)), text


def run_step(given: Reporter, units: int = 3) -> None:
    with given.track("measure", units) as advance:
        for unit in range(units):
            advance(f"unit {unit}")


def test_a_bar_with_the_time_left_on_a_terminal() -> None:
    given, text = reporter(terminal=True)
    run_step(given)
    assert "measure" in text.getvalue()
    assert "3/3" in text.getvalue()
    assert "left" in text.getvalue()
    assert "0:00:00" in text.getvalue()


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (False, True), (True, True)])
def test_one_plain_line_for_a_short_step_elsewhere(terminal: bool, quiet: bool) -> None:
    given, text = reporter(terminal, quiet)
    run_step(given)
    assert text.getvalue() == "measure: 3 of 3 in 0.0 s\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_long_step_without_a_terminal_says_how_far_it_is_unless_quiet(
    quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=SECONDS_BETWEEN_LINES)
    monkeypatch.setattr("branchtune.progress.time.monotonic", lambda: float(next(ticks)))
    given, text = reporter(terminal=False, quiet=quiet)
    run_step(given)
    between = ["measure: 1 of 3, unit 0, 0:01:00 left", "measure: 2 of 3, unit 1, 0:00:30 left"]
    assert text.getvalue().splitlines() == [*([] if quiet else between), "measure: 3 of 3 in 120.0 s"]


def test_a_step_that_fails_is_not_reported_as_done() -> None:
    given, text = reporter(terminal=False)

    def boom() -> None:
        with given.track("measure", 3):
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        boom()
    assert text.getvalue() == ""


def test_a_step_that_fails_halfway_says_so() -> None:
    given, text = reporter(terminal=False)

    def boom() -> None:
        with given.track("train", 3) as advance:
            advance()
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        boom()
    assert text.getvalue() == "train: stopped after 1 of 3\n"
