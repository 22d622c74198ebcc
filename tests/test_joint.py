"""Two processes with half of a batch each do what one does with all of it (gloo, float64)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from branchtune.data.sampling import EpochSampler
from branchtune.errors import UserError
from joint_worker import (
    OWN,
    PROCESSES,
    Step,
    gradients_of,
    metrics_of,
    model_and_batch,
    per_task_gradients,
    statistics_after,
    work,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("joint")
    torch.multiprocessing.spawn(work, (folder,), PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()  # None where no process reaches the parameter
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10 * float(largest), msg=name)


@pytest.mark.parametrize("step", ["step 0", "step 1"])
def test_gradients_are_those_of_one_process_with_the_joint_batch(results: list[dict[str, Any]], step: str) -> None:
    """Also of a task whose labels are all in one process; one without any label gets none."""
    model, batch = model_and_batch()
    Step(model)(batch).backward()
    expected = gradients_of(model)
    assert any("3/d." in name for name in expected)
    assert not any("3/e." in name for name in expected)
    for found in results:
        same(found[step], expected)


def test_gradients_per_task_are_those_of_the_joint_batch(results: list[dict[str, Any]]) -> None:
    model, batch = model_and_batch()
    expected = per_task_gradients(model, batch)
    # A user's own mean is over its process: with all labels in one of two, averaging halves it.
    expected |= {name: value / PROCESSES for name, value in expected.items() if name.startswith(f"{OWN}.")}
    for found in results:
        same(found["per task"], expected)


def test_metrics_are_exact_with_uneven_shares(results: list[dict[str, Any]]) -> None:
    model, batch = model_and_batch()
    expected = metrics_of(model, [{key: value[i : i + 1] for key, value in batch.items()} for i in range(4)])
    for found in results:
        assert found["metrics"].keys() == expected.keys()
        for task, values in expected.items():
            assert found["metrics"][task] == pytest.approx(values, rel=1e-12, nan_ok=True), task
    assert math.isfinite(expected["d"]["own"])  # of which one process has no label
    assert all(map(math.isnan, expected["e"].values()))


@pytest.mark.parametrize("train_tasks", [None, ["a"]], ids=["all", "of a"])
def test_running_statistics_become_the_mean_of_the_processes(
    results: list[dict[str, Any]], train_tasks: list[str] | None
) -> None:
    """Those of what trains; what is at rest keeps its own, and counts stay counts."""
    key = "statistics" if train_tasks is None else "statistics of a"
    alone = [statistics_after(found["images"], train_tasks)[1] for found in results]
    moved = ("decoders.a.",) if train_tasks else ("decoders.", "backbone.frozen.norm.")
    for found in results:
        before, after = found[key]
        for name, value in after.items():
            if name.startswith(moved) and "running" in name:
                assert not torch.equal(alone[0][name], alone[1][name])
                torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, msg=name)
            elif name.startswith(moved):
                assert torch.equal(value, alone[0][name]), name
            else:
                assert torch.equal(value, before[name]), name


def test_sharing_leaves_what_is_equal_in_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in three, where (x + x + x) / 3 is not x in float32."""
    images = [torch.randn(2, 3, 32, 32)]
    _, alone = statistics_after(images)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.copy_(total + total + total))
    _, shared = statistics_after(images)
    assert all(torch.equal(value, alone[name]) for name, value in shared.items())


@pytest.mark.parametrize("length", [4, 7, 8, 11])
def test_every_sample_is_in_the_share_of_one_process(length: int) -> None:
    for drop_last in (False, True):
        alone = list(EpochSampler(length, 4, seed=3, drop_last=drop_last))
        shares = [list(EpochSampler(length, 2, 3, drop_last=drop_last, rank=r, processes=2)) for r in range(2)]
        assert [len(share) for share in shares] == [
            len(EpochSampler(length, 2, 3, drop_last=drop_last, rank=r, processes=2)) for r in range(2)
        ]
        for index, joint in enumerate(alone):
            parts = [share[index] for share in shares if index < len(share)]
            assert sorted(pair for part in parts for pair in part) == sorted(joint)
        assert not drop_last or len(shares[0]) == len(shares[1])


def test_fewer_samples_than_processes_are_refused() -> None:
    with pytest.raises(UserError, match="1 samples for 2 processes"):
        EpochSampler(1, 2, processes=2)
