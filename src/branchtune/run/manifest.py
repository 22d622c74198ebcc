"""Where a run's numbers come from: versions, hardware, command, weights."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from branchtune._version import __version__
from branchtune.backbone.source import report_of, source_of

if TYPE_CHECKING:
    from branchtune.run.workbench import Workbench

PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"branchtune": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def hardware() -> str:
    """The device that computes, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def manifest(bench: Workbench) -> dict[str, Any]:
    """Everything about a run that its configuration does not say."""
    report, source = report_of(bench.backbone), source_of(bench.backbone)
    return {
        "format": 1,
        "command": " ".join(sys.argv),
        "seed": bench.config.seed,
        "versions": versions(),
        "hardware": hardware(),
        "backbone": source.to_json() if source is not None else None,
        "weights": report.to_json() if report is not None else None,
    }
