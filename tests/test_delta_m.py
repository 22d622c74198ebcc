"""The average relative gain: its sign, its mean, and what cannot be compared (published rows: test_published.py)."""

from __future__ import annotations

import pytest

from branchtune.errors import UserError
from branchtune.evaluation.delta_m import delta_m, relative_gains

PASCAL = {"semseg": 67.21, "parts": 61.93, "saliency": 62.35, "normals": 17.97}
NYUD = {"semseg": 42.65, "depth": 0.60, "normals": 22.83}
HIGHER = {"semseg": True, "parts": True, "saliency": True, "normals": False, "depth": False}


def test_the_sign_is_that_of_an_improvement() -> None:
    gains = relative_gains({"semseg": 55.0, "depth": 0.9}, {"semseg": 50.0, "depth": 1.0}, HIGHER)
    assert gains == pytest.approx({"semseg": 10.0, "depth": 10.0})
    assert delta_m({"semseg": 45.0, "depth": 1.2}, {"semseg": 50.0, "depth": 1.0}, HIGHER) == pytest.approx(-15.0)


def test_the_reference_itself_gains_nothing() -> None:
    assert delta_m(PASCAL, PASCAL, HIGHER) == 0.0


def test_the_reference_may_know_further_tasks() -> None:
    assert delta_m({"normals": 17.97}, PASCAL, HIGHER) == 0.0


@pytest.mark.parametrize(
    ("results", "reference", "message"),
    [
        ({}, PASCAL, "no results"),
        (
            {"depth": 0.6},
            PASCAL,
            r"task 'depth' has no reference \(it has: normals, parts, saliency, semseg\)",
        ),
        ({"edge": 0.6}, {"edge": 0.5}, "task 'edge': say in higher_is_better"),
        ({"depth": 0.6}, {"depth": 0.0}, "task 'depth': the reference is 0.0"),
        ({"depth": 0.6}, {"depth": -1.0}, "task 'depth': the reference is -1.0"),
        ({"depth": 0.6}, {"depth": float("nan")}, "task 'depth': the reference is nan"),
        ({"depth": float("nan")}, NYUD, "task 'depth': the result is nan"),
        ({"depth": float("inf")}, NYUD, "task 'depth': the result is inf"),
    ],
)
def test_what_cannot_be_compared(results: dict[str, float], reference: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        delta_m(results, reference, HIGHER)
