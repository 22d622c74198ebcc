"""Fixtures and settings shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tiny_run import write_config

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers, alone or among others."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file whose run is finished, beside `runs/tiny`."""
    from branchtune.cli.main import main

    path = write_config(tmp_path_factory.mktemp("run"))
    assert main(["fit", str(path), "--quiet"]) == 0
    return path
