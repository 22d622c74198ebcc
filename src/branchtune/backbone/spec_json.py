"""`BackboneSpec` <-> JSON, so that a measured affinity can be planned with without the backbone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from branchtune.backbone.spec import BackboneSpec, Feature, Level, SideInput, Site
from branchtune.errors import UserError

_PAIRS = ("kernel_size", "stride", "padding", "dilation")


def spec_to_json(spec: BackboneSpec) -> dict[str, Any]:
    """A JSON-ready dictionary; `spec_from_json` of its text gives an equal spec."""
    data = asdict(spec)
    # JSON has only text as keys, and a side input's position (int) differs from a keyword (str).
    for side in data["side_inputs"]:
        side["rows"] = [[key, count] for key, count in side["rows"].items()]
    return data


def spec_from_json(data: dict[str, Any]) -> BackboneSpec:
    """The inverse of `spec_to_json`.

    Raises:
        UserError: keys are missing, unknown or of the wrong type.
    """
    try:
        return BackboneSpec(
            **{
                **data,
                "image_size": tuple(data["image_size"]),
                "levels": tuple(_level(level) for level in data["levels"]),
                "sites": tuple(Site(**{**site, **_pairs(site)}) for site in data["sites"]),
                "dead": dict(data["dead"]),
                "side_inputs": tuple(_side_input(side) for side in data["side_inputs"]),
                "parameters": tuple(data["parameters"]),
                "feature_indices": None if data["feature_indices"] is None else tuple(data["feature_indices"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not a description of a backbone ({type(error).__name__}: {error}): write it again") from error


def _level(data: dict[str, Any]) -> Level:
    return Level(**{**data, "feature": Feature(**data["feature"])})


def _pairs(site: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: tuple(site[name]) for name in _PAIRS}


def _side_input(data: dict[str, Any]) -> SideInput:
    return SideInput(**{**data, "rows": {key: count for key, count in data["rows"]}})
