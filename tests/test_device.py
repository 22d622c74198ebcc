"""One device for the whole run, from the trainer's keys."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from branchtune.errors import UserError
from branchtune.training.device import check_devices, choose_device, device_numbers


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("keys", "device"),
    [
        ({}, "cuda:0"),
        ({"accelerator": "gpu", "devices": 1}, "cuda:0"),
        ({"accelerator": "cuda", "devices": [1]}, "cuda:1"),
        ({"accelerator": "auto", "devices": "auto"}, "cuda:0"),
        ({"accelerator": "cpu", "devices": 1}, "cpu"),
    ],
)
def test_a_gpu_is_used_unless_the_keys_say_otherwise(keys: dict[str, Any], device: str) -> None:
    assert str(choose_device(keys)) == device


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("keys", [{"devices": 2}, {"devices": [0, 1]}, {"devices": -1}, {"num_nodes": 2}])
def test_several_devices_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="one process uses one device"):
        choose_device(keys)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("keys", [{"devices": 2}, {"devices": "auto"}, {"devices": -1}])
def test_a_process_of_several_has_the_device_of_its_rank(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert str(choose_device(keys)) == "cuda:1"
    assert str(choose_device({"devices": [1, 0]})) == "cuda:0"


@pytest.mark.parametrize("devices", [0, -2, [], [0, 0], ["a"], "two", True, 1.5])
def test_devices_that_are_none(devices: Any) -> None:
    with pytest.raises(UserError, match="give how many, a list of their numbers, or -1 for all"):
        choose_device({"devices": devices})


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_this_machine_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"devices=\[2\] needs GPU 2, and this machine has 2 GPUs, numbered from 0"):
        choose_device({"devices": [2]})


@pytest.mark.usefixtures("gpus")
def test_every_device_is_looked_at_before_a_process_is_started_for_each() -> None:
    for keys in ({"devices": 2}, {"devices": [1]}, {"devices": -1}, {"accelerator": "cpu", "devices": 9}):
        check_devices(keys)
    for devices, lacking in ((3, 2), ([1, 5], 5)):
        message = f"trainer.devices={devices!r} needs GPU {lacking}, and this machine has 2 GPUs"
        with pytest.raises(UserError, match=re.escape(message)):
            check_devices({"devices": devices})


@pytest.mark.usefixtures("gpus")
def test_all_devices_are_gpus_only_where_gpus_are_used() -> None:
    assert device_numbers({"devices": -1}) == [0, 1]
    assert device_numbers({"devices": -1, "accelerator": "cpu"}) == [0]


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_gpu_is_refused() -> None:
    assert str(choose_device({})) == "cpu"
    with pytest.raises(UserError, match="accelerator=gpu: no such device is available here"):
        choose_device({"accelerator": "gpu"})
    with pytest.raises(UserError, match=r"unknown trainer\.accelerator 'tpu'"):
        choose_device({"accelerator": "tpu"})
