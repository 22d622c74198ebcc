"""Numbers in the few characters that a table has for them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three decimals, two from 10 on; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{rounded(value, 3):.3f}"


def signed(value: float | None) -> str:
    """Two decimals and the sign; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{rounded(value):+.2f}"


def rounded(value: float, digits: int = 2) -> float:
    """To be written with so many decimals: what is zero then has no minus."""
    return round(value, digits) + 0.0


def count(value: int | None) -> str:
    """Three digits and a unit: 271k, 1.00M; a dash for None."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        scaled = value / size
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return str(value)


def arrow(higher_is_better: bool) -> str:
    """Beside a metric's name: where better is."""
    return "↑" if higher_is_better else "↓"
