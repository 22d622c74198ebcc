"""Fixtures and settings shared by the tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from compared import ARGUMENTS, RATES
from tiny_run import write_config

if TYPE_CHECKING:
    from branchtune.comparison.result import Comparison

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from one_process import TogetherScheduling

    return TogetherScheduling(config, log)


def pytest_collection_finish() -> None:
    """What was imported stays: the collections of garbage that every run ends with need not look through it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # extensions look for what is left when Python ends


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


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny.yaml` and its finished comparison of all `METHODS` in `runs/versus`."""
    from branchtune.cli.main import main

    folder = tmp_path_factory.mktemp("compare")
    config = write_config(folder)
    text = config.read_text().replace("max_epochs: 3", "max_epochs: 1")
    config.write_text(f"{text}optimizer: {{class_path: branchtune.WeightedSum, init_args: {RATES}}}\n")
    assert main(["compare", str(config), *ARGUMENTS, "--grid=[1,3]"]) == 0
    return folder


@pytest.fixture
def comparison(compared: Path) -> Comparison:
    from branchtune.comparison.result import Comparison

    return Comparison.load(compared / "runs" / "versus" / "comparison.json")
