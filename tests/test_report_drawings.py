"""Drawings and pictures of the report, with known answers."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import branchtune as bt
from affinity_cases import made_up_spec
from branchtune.affinity import Affinity
from branchtune.pictures.colour import class_colours, error_picture, picture, target_picture
from branchtune.report.page.axes import Axes
from branchtune.report.page.chart import Series, line_chart
from branchtune.report.page.dendrogram_svg import LETTER, dendrogram_drawing
from branchtune.report.page.error_map import error_map, written
from branchtune.report.page.heat import HeatCell, heat_maps, plain_cosines
from branchtune.report.page.picture_data import LIMIT, PictureWriter
from branchtune.report.page.scatter import Mark, scatter_chart
from branchtune.report.page.svg import element, mixed, ticks, told_apart
from branchtune.report.page.tree_svg import THICK, THIN, thickness
from own_tasks import ManyClasses


def test_thickness_is_in_proportion_to_the_parameters() -> None:
    assert thickness(500, 1000) == THICK / 2
    assert thickness(1000, 1000) == THICK
    assert thickness(0, 1000) == thickness(0, 0) == THIN


def test_what_a_name_holds_is_escaped() -> None:
    assert str(element("text", "<a & b>", x=1.25)) == '<text x="1.25">&lt;a &amp; b&gt;</text>'
    assert mixed([1]) == "var(--c1)"
    assert "50.0%" in mixed([0, 1])
    assert mixed([0, 1, 10, 20]) == "color-mix(in oklab, var(--c0) 75.0%, var(--c1))"
    assert mixed(range(500)).count("color-mix") == 9  # more inside of each other stop Chromium


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (3, 3, [3]), (0, 70, [0, 20, 40, 60])],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high)
    assert set(found) >= set(expected)
    assert all(low <= tick <= high for tick in found)


def test_ticks_that_are_close_are_written_apart() -> None:
    assert told_apart([0.05070, 0.05071, 0.05072]) == ["0.0507", "0.05071", "0.05072"]
    assert told_apart([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert told_apart([]) == []


def test_a_line_goes_through_its_points() -> None:
    chart = line_chart("loss", [Series("a", [(1, 2.0), (2, 1.0), (3, 1.5)], "red"), Series("empty", [], "blue")])
    assert chart is not None
    root = ElementTree.fromstring(str(chart.svg))
    lines = [path for path in root.iter("path") if path.get("class") == "line"]
    axes = Axes([1, 3], [1.0, 2.0])
    assert [path.get("d") for path in lines] == [
        "M" + " L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in ((1, 2.0), (2, 1.0), (3, 1.5)))
    ]
    assert "from 2 at epoch 1 to 1.5 at 3" in str(root.get("aria-label"))
    assert line_chart("loss", [Series("empty", [], "blue")]) is None


@pytest.mark.parametrize("value", [0.0, 0.2, 31.0])
def test_a_metric_that_was_measured_once_has_no_negative_tick(value: float) -> None:
    chart = line_chart("mIoU", [Series("a", [(1, value)], "red")])
    assert chart is not None
    assert value == 0 or "−" not in str(chart.svg)
    axes = Axes([1], [value])
    assert axes.y_low < value < axes.y_high


def test_zero_has_a_place_on_a_logarithmic_axis() -> None:
    axes = Axes([0, 1000, 100_000], [0.0], log_x=True)
    places = [axes.x(value) for value in (0, 1000, 100_000)]
    assert places == sorted(places)
    assert all(math.isfinite(place) for place in places)


def test_the_zero_of_the_axis_has_no_minus_beside_its_point() -> None:
    marks = [Mark(10.0, -1e-9, None, Series("single-task", [], "red")), Mark(20.0, 1.0, 0.5, Series("b", [], "blue"))]
    svg = str(scatter_chart("Δm %", "MACs", marks, [], str).svg)
    assert "<title>single-task: +0.00 at 10</title>" in svg
    assert "Δm % against MACs: single-task: +0.00 at 10; b: +1.00 at 20" in svg


def measured(values: dict[tuple[int, int], float], error: float, names: str = "abc") -> Affinity:
    """Pairs that are not named have a measured value of 0.5, like the tasks with themselves."""
    matrix = np.full((len(names), len(names)), 0.5)
    for (a, b), value in values.items():
        matrix[a, b] = matrix[b, a] = value
    errors = np.full_like(matrix, error)
    return Affinity(tuple(names), matrix, matrix[None], errors, errors[None], made_up_spec([(100, 8)]))


def cells(affinity: Affinity) -> dict[str, HeatCell]:
    overall = heat_maps(affinity)[0].rows
    return {pair: overall["abc".index(pair[0])]["abc".index(pair[1])] for pair in ("aa", "ab", "ac", "bc")}


def test_a_pair_within_its_standard_error_is_marked_as_unclear() -> None:
    found = cells(measured({(0, 1): -0.015, (0, 2): 0.0211}, error=0.02))
    assert {pair: cell.unclear for pair, cell in found.items()} == {"aa": False, "ab": True, "ac": False, "bc": False}
    assert [found["ab"].text, found["ac"].text] == ["0.00", "0.00"]
    assert found["ab"].title == "a – b, all levels: 0.00, measured -0.015 ± 0.020, within its standard error"
    assert not cells(measured({(0, 1): 0.0}, error=float("nan")))["ab"].unclear


def test_small_affinities_have_no_minus_before_a_zero() -> None:
    affinity = measured({(0, 1): -0.0012}, error=0.001)
    assert cells(affinity)["ab"].text == "0.00"
    assert ": 0.00, measured -0.0012 ± 0.0010" in cells(affinity)["ab"].title
    _, rows, _ = plain_cosines(measured({(0, 1): -0.0001}, error=0.02))
    assert rows[1] == ["a – b", "0.000 ± 0.020", "0.000 ± 0.020"]


@pytest.mark.parametrize("length", [3, 20, 60])
def test_names_of_tasks_stay_inside_the_dendrogram(length: int) -> None:
    name = "n" * length
    affinity = measured({}, 0.1)
    svg = ElementTree.fromstring(
        str(dendrogram_drawing(Affinity.from_matrix([name, "b", "c"], affinity.overall, affinity.spec)))
    )
    shown = [found for found in svg.iter("text") if str(found.text).startswith("nn")]
    assert len(shown) == 1
    assert float(shown[0].get("x", 0)) >= LETTER * len(str(shown[0].text))
    assert name in [found.text for found in svg.iter("title")]
    assert name in str(svg.get("aria-label"))


def test_errors_of_every_kind_of_target() -> None:
    nan = float("nan")
    classes = bt.SemanticSegmentation("s", num_classes=3)
    found = torch.tensor([[0, 1, 2]], dtype=torch.uint8)
    assert error_map(classes, found, torch.tensor([[0, 2, 255]])).nan_to_num(-1).tolist() == [[0, 1, -1]]
    up, right = torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 0, 0])
    normals = error_map(bt.Normals("n"), torch.stack([up, up], -1)[:, None], torch.stack([right, up], -1)[:, None])
    assert normals[0].tolist() == pytest.approx([90.0, 0.0], abs=0.05)
    depth = error_map(bt.Depth("d"), torch.tensor([[2.0, 3.0]]), torch.tensor([[2.5, nan]]))
    assert depth.nan_to_num(-1).tolist() == [[0.5, -1]]
    edge = error_map(bt.Edges("e"), torch.full((1, 1), 0.25), torch.ones(1, 1))
    assert float(edge) == 0.75


def test_tasks_with_one_label_per_image_are_written_out() -> None:
    classes, values = bt.ImageClassification("c", num_classes=2), bt.ImageRegression("r", num_outputs=2)
    assert written(classes, torch.tensor([0.5, 0.5]), torch.tensor(1)) == ("class 1", "class 0 (50%)", "wrong")
    assert written(classes, torch.tensor([0.5, 0.5]), torch.tensor(-100)) == ("–", "class 0 (50%)", "–")
    target = torch.tensor([1.0, float("nan")])
    assert written(values, torch.tensor([3.0, 4.0]), target) == ("1, –", "3, 4", "2, –")


def test_target_and_prediction_share_a_scale() -> None:
    task = bt.Depth("d")
    limits = (1.0, 3.0)
    shown = [picture(task, torch.full((1, 1), value), limits)[0, 0, 0] for value in (1.0, 2.0, 3.0, 9.0)]
    assert shown == [255, 127, 0, 0]
    assert target_picture("depth", torch.tensor([[2.0]]), 1, limits)[0, 0, 0] == 127


def test_errors_are_dark_where_small_and_grey_without_label() -> None:
    pixels = error_picture(torch.tensor([[0.0, 5.0, 99.0, float("nan")]]), 5.0)[0]
    assert pixels.tolist() == [[0, 0, 4], [252, 255, 164], [252, 255, 164], [89, 89, 89]]


def test_a_predicted_class_may_have_the_number_that_marks_ignored_targets() -> None:
    many, few, grey = ManyClasses("many"), bt.SemanticSegmentation("few", num_classes=3), [89, 89, 89]
    found = torch.tensor([[255, 299, 299]], dtype=torch.uint16)
    assert picture(many, found)[0].tolist() == class_colours(300)[[255, 299, 299]].tolist()
    assert picture(few, torch.tensor([[255]], dtype=torch.uint8)).tolist() == [[grey]]
    assert target_picture("classes", torch.tensor([[255]]), 300).tolist() == [[grey]]
    assert error_map(many, found, torch.tensor([[299, 299, 255]])).nan_to_num(-1).tolist() == [[1, 0, -1]]


def test_pictures_of_ten_tasks_on_large_noise_stay_below_the_limit() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (500, 700, 3), dtype=np.uint8) for _ in range(6)]
    pictures += [picture[:400, :600] for picture in pictures for _ in range(30)]
    write = PictureWriter(pictures)
    assert 0.2 * LIMIT < sum(len(write(picture)) for picture in pictures) <= LIMIT


def test_a_map_of_classes_keeps_its_colours() -> None:
    import base64
    import io

    colours = np.array([[[1, 2, 3], [200, 100, 0]], [[1, 2, 3], [9, 9, 9]]], np.uint8)
    uri = PictureWriter([colours])(colours)
    assert uri.startswith("data:image/png;base64,")
    found = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    assert np.array_equal(np.asarray(found), colours)
