"""Where the numbers of one group come from."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from branchtune.run.manifest import hardware, versions

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("peft", "onnxruntime")  # beside those of a run's manifest


def provenance(device: torch.device, small: bool) -> dict[str, Any]:
    """What belongs to every number: where, when, with what and on what it was measured."""
    used = versions()
    used.pop("commit", None)  # `commit()` here
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "small": small,
        "versions": used | {package: _version(package) for package in PACKAGES},
        "hardware": hardware(device),
        "machine": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.platform(),
            "load_average": [round(value, 2) for value in os.getloadavg()],
        },
    }


def commit() -> str | None:
    """The last commit that changed what is measured, with "-dirty" where it was changed since; None outside of git.

    Later commits of results and documentation leave it as it is: a profile made after them belongs to the results.
    """
    sources = ["src", "benchmarks", "configs", ":!benchmarks/results", ":!benchmarks/README.md"]
    head = _git("log", "-1", "--format=%h", "--abbrev=12", "--", *sources)
    changed = _git("status", "--porcelain", "--", *sources)
    return f"{head}-dirty" if head and changed else head


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
