"""The average relative gain against the published tables that are consistent with themselves."""

from __future__ import annotations

import pytest

from branchtune.errors import UserError
from branchtune.evaluation.delta_m import delta_m, relative_gains

PASCAL = {"semseg": 67.21, "parts": 61.93, "saliency": 62.35, "normals": 17.97}
NYUD = {"semseg": 42.65, "depth": 0.60, "normals": 22.83}
HIGHER = {"semseg": True, "parts": True, "saliency": True, "normals": False, "depth": False}

PUBLISHED = {
    "MTLoRA r=16": (PASCAL, (68.19, 58.99, 64.48, 17.03), 1.35),
    "MTLoRA r=32": (PASCAL, (67.74, 59.46, 64.90, 16.59), 2.16),
    "MTLoRA r=64": (PASCAL, (67.90, 59.84, 65.40, 16.60), 2.55),
    "DiTASK": (PASCAL, (69.66, 62.02, 65.00, 17.10), 3.22),
    "DiTASK, single task": (PASCAL, (72.20, 62.33, 65.70, 16.55), 5.33),
    "TADFormer r=16": (PASCAL, (69.79, 59.27, 65.04, 16.91), 2.44),
    "TADFormer r=32": (PASCAL, (70.20, 60.00, 65.71, 16.57), 3.63),
    "TADFormer r=64": (PASCAL, (70.82, 60.45, 65.88, 16.48), 4.24),
    "FAAR": (PASCAL, (72.02, 61.25, 66.11, 16.35), 5.28),
    "Free Sinewich r=32": (PASCAL, (71.02, 60.75, 65.94, 16.44), 4.51),
    "Free Sinewich r=64": (PASCAL, (71.25, 61.38, 66.24, 16.14), 5.39),
    "NYUD multi-task full fine-tuning": (NYUD, (38.85, 0.66, 24.33), -8.49),
    "NYUD TADFormer r=64": (NYUD, (40.85, 0.64, 27.48), -10.42),
    "NYUD FAAR": (NYUD, (41.27, 0.63, 26.35), -7.88),
}


@pytest.mark.parametrize(("reference", "values", "printed"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_rows(reference: dict[str, float], values: tuple[float, ...], printed: float) -> None:
    results = dict(zip(reference, values, strict=True))
    assert delta_m(results, reference, HIGHER) == pytest.approx(printed, abs=0.02)


def test_the_published_row_that_contradicts_its_own_numbers() -> None:
    """Multi-task full fine-tuning on PASCAL is printed as +2.23; its own four numbers give +2.45."""
    results = dict(zip(PASCAL, (67.56, 60.24, 65.21, 16.64), strict=True))
    assert delta_m(results, PASCAL, HIGHER) == pytest.approx(2.445, abs=0.001)


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
