"""`Affinity` <-> JSON text and files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from branchtune.affinity.matrix import Affinity, AffinityCost, Matrix
from branchtune.atomic import write_json
from branchtune.backbone.spec_json import spec_from_json, spec_to_json
from branchtune.errors import UserError

FORMAT = 1


def affinity_to_json(affinity: Affinity) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "tasks": list(affinity.tasks),
        "overall": affinity.overall.tolist(),
        "per_level": affinity.per_level.tolist(),
        "overall_error": _hide_nan(affinity.overall_error.tolist()),
        "per_level_error": _hide_nan(affinity.per_level_error.tolist()),
        "normalize": affinity.normalize,
        "source": affinity.source,
        "samples": dict(affinity.samples),
        "seeds": list(affinity.seeds),
        "cost": asdict(affinity.cost),
        "backbone": spec_to_json(affinity.spec),
    }


def affinity_from_json(data: str | dict[str, Any]) -> Affinity:
    try:
        content = json.loads(data) if isinstance(data, str) else data
        version = content["format"]
        if isinstance(version, int) and version > FORMAT:
            raise UserError(
                f"affinity format {version} is newer than this version of branchtune reads ({FORMAT}): "
                "update branchtune"
            )
        return Affinity(
            tuple(content["tasks"]),
            _array(content["overall"]),
            _array(content["per_level"]),
            _array(content["overall_error"]),
            _array(content["per_level_error"]),
            spec=spec_from_json(content["backbone"]),
            normalize=content["normalize"],
            source=content["source"],
            samples=dict(content["samples"]),
            seeds=tuple(content["seeds"]),
            cost=AffinityCost(**content["cost"]),
        )
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not an affinity ({type(error).__name__}: {error}): measure it again") from error


def save_affinity(affinity: Affinity, path: str | os.PathLike[str]) -> None:
    write_json(path, affinity_to_json(affinity))


def load_affinity(path: str | os.PathLike[str]) -> Affinity:
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"no affinity at {name!r}: measure_affinity(...).save(path) writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the affinity {name!r}: {error}") from error
    try:
        return affinity_from_json(text)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _hide_nan(values: Any) -> Any:
    """JSON knows no NaN: an unknown error is null."""
    if isinstance(values, list):
        return [_hide_nan(value) for value in values]
    return None if np.isnan(values) else values


def _array(values: Any) -> Matrix:
    return np.array(values, dtype=np.float64)
