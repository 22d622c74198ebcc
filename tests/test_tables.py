"""Tables of text: on a terminal of any width, as Markdown, JSON and CSV; numbers and trends in few characters."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from rich.console import Console

from branchtune.progress import Reporter
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import number, signed
from branchtune.tables.outcome import Outcome
from branchtune.tables.sparkline import sparkline

NAN = math.nan
HEADING = ["method", *(f"metric of task {i}" for i in range(8))]
WIDE = Cells("Quality", HEADING, [["branched, planned tree", *["0.2412 ± 0.0031"] * 8], ["comb", *["0.1 ± 0.2"] * 8]])


def printed(cells: Cells, width: int) -> list[str]:
    text = io.StringIO()
    Reporter(console=Console(file=text, width=width)).table(cells)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 300])
def test_columns_that_do_not_fit_follow_below_and_no_number_is_cut(width: int) -> None:
    lines = printed(WIDE, width)
    assert max(map(len, lines)) <= width
    assert sum(line.count("0.2412 ± 0.0031") for line in lines) == 8
    assert sum(line.startswith(" comb ") for line in lines) == {60: 4, 80: 3, 300: 1}[width]
    assert sum("Quality" in line for line in lines) == 1


def test_brackets_are_text_and_no_markup() -> None:
    names = ["wall [/b]", "[red]door[/red]"]
    text = "\n".join(printed(Cells("", ["class", "[b]share"], [[name, "1"] for name in names]), 80))
    assert all(name in text for name in [*names, "[b]share"])


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert [number(-0.0004), signed(-0.004), signed(-0.0), signed(-0.006)] == ["0.000", "+0.00", "+0.00", "-0.01"]


def test_markdown_is_a_github_table() -> None:
    cells = Cells("", ["", "single-\ntask", "one set\nper task"], [["a|b", "1", "2"], ["c", "3", "4"]], ends=[0])
    expected = ["|  | single-task | one set per task |", "| --- | ---: | ---: |", r"| a\|b | 1 | 2 |", "| c | 3 | 4 |"]
    assert cells.markdown().splitlines() == expected


def test_an_outcome_in_every_format() -> None:
    records = [{"task": "a, b", "value": 1 / 3}, {"task": "c", "value": NAN, "gain": None}]
    outcome = Outcome([Cells("T", ["x"], [["1"]])], ["a note"], records, {"values": [1 / 3, NAN, math.inf], "n": 3})
    assert outcome.text("md") == "T:\n\n| x |\n| --- |\n| 1 |\n\na note\n"
    assert json.loads(outcome.text("json")) == {"values": [1 / 3, None, None], "n": 3}
    rows = list(csv.DictReader(io.StringIO(outcome.text("csv"))))
    assert rows == [{"task": "a, b", "value": repr(1 / 3), "gain": ""}, {"task": "c", "value": "", "gain": ""}]


@pytest.mark.parametrize(
    ("values", "higher", "expected", "signs"),
    [
        ([], True, "", ""),
        ([1.0], True, "", ""),
        ([1.0, 2.0, 3.0], True, "▁▅█", "++"),
        ([1.0, 2.0, 3.0], False, "█▅▁", "--"),
        ([2.0, 2.0], True, "▄▄", "="),
        ([NAN, 0.0, NAN, 7.0], True, "▁█", "+"),
        ([float(i) for i in range(20)], True, "▁▂▃▄▅▆▇█", "++++++++"),
    ],
)
def test_a_trend_goes_up_where_it_gets_better(values: list[float], higher: bool, expected: str, signs: str) -> None:
    assert sparkline(values, higher) == expected
    assert sparkline(values, higher, ascii_only=True) == signs
