"""Where a run's numbers come from: versions, hardware, command, weights."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from branchtune._version import __version__
from branchtune.backbone.source import report_of, source_of
from branchtune.model import MultiTaskModel
from branchtune.training.processes import rank_and_count
from branchtune.tree import TaskTree

if TYPE_CHECKING:
    from branchtune.run.workbench import Workbench

PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Versions of what computes the numbers; `commit` where branchtune runs from a git checkout of it."""
    found = {"branchtune": __version__, "python": platform.python_version()}
    if commit() is not None:
        found["commit"] = str(commit())
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def commit() -> str | None:
    """The checkout's commit, with `+changes` where tracked files differ from it; None outside of one."""
    here = Path(__file__)
    try:
        # Of the repository that has this very file, not of one that an environment happens to lie in.
        _git(here, "ls-files", "--error-unmatch", here.name)
        return _git(here, "rev-parse", "--short=10", "HEAD") + (
            "+changes" if _git(here, "diff", "HEAD", "--name-only") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=file.parent, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def hardware(device: torch.device) -> str:
    """The device that computes, in words, after the number of processes that have one each, where there are several."""
    count = rank_and_count()[1]
    return f"{count} x {_device(device)}" if count > 1 else _device(device)


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{platform.machine()} GPU (Metal)"
    return f"{_processor()}, {torch.get_num_threads()} threads"


@cache
def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else f"{platform.machine()} CPU"


def manifest(bench: Workbench, model: MultiTaskModel | None = None) -> dict[str, Any]:
    """Everything about a run that its configuration does not say.

    Args:
        bench: of the run.
        model: once there is one, its tree's hash and its parameters by owner are added.
    """
    report, source = report_of(bench.backbone), source_of(bench.backbone)
    content = {
        "format": 1,
        "command": " ".join(sys.argv),
        "seed": bench.config.seed,
        "versions": versions(),
        "hardware": hardware(bench.device),
        "processes": rank_and_count()[1],
        "backbone": source.to_json() if source is not None else None,
        "weights": report.to_json() if report is not None else None,
        "data": bench.data_report(),
        "adapter_limit": bench.adapter_limit,
        "start_from": None if bench.start is None else bench.start.to_json(),
    }
    if model is not None:
        content |= {"tree_sha256": tree_sha256(model.tree), "parameters": model.count_parameters()}
        content["trained_parameters"] = model.count_parameters(trained_only=True)
    return content


def tree_sha256(tree: TaskTree) -> str:
    """The same for equal trees, in every process."""
    return hashlib.sha256(json.dumps(tree.to_json(), sort_keys=True).encode()).hexdigest()
