"""Two processes with half of a batch each do what one does with all of it (gloo, float64)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from branchtune.data.sampling import EpochSampler
from branchtune.errors import UserError
from joint_worker import OWN, PROCESSES, Step, gradients_of, metrics_of, model_and_batch, per_task_gradients, work


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
