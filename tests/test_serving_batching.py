"""The queue: what shares a batch, when it leaves, and what a failure touches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from branchtune.serving.batching import Batcher


class Recorder:
    """Doubles numbers, and remembers what it was given at once; a negative one is an error."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = gate

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        if self.gate is not None:
            self.gate.wait(10)
        if min(items) < 0:
            raise ValueError("negative")
        return [2 * item for item in items]


def submitted(
    work: Recorder, items: Sequence[tuple[str, int]], *, max_batch: int = 8, max_delay: float = 0.2
) -> list[Any]:
    async def run() -> list[Any]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(work, thread, max_batch=max_batch, max_delay=max_delay)
            runner = asyncio.create_task(batcher.run())
            results = await asyncio.gather(*(batcher.submit(*item) for item in items), return_exceptions=True)
            runner.cancel()
            return results

    return asyncio.run(run())


def test_requests_share_a_batch_up_to_its_size() -> None:
    work = Recorder()
    assert submitted(work, [("all", n) for n in range(5)], max_batch=3) == [0, 2, 4, 6, 8]
    assert work.batches == [("all", [0, 1, 2]), ("all", [3, 4])]


def test_only_equal_tasks_share_a_batch() -> None:
    work = Recorder()
    assert submitted(work, [("a", 1), ("b", 2), ("a", 3)]) == [2, 4, 6]
    assert work.batches == [("a", [1, 3]), ("b", [2])]


def test_a_lonely_request_waits_no_longer_than_the_delay() -> None:
    begin = time.perf_counter()
    assert submitted(Recorder(), [("a", 1)], max_delay=0.05) == [2]
    assert 0.05 <= time.perf_counter() - begin < 5


def test_a_full_batch_does_not_wait() -> None:
    begin = time.perf_counter()
    assert submitted(Recorder(), [("a", 1), ("a", 2)], max_batch=2, max_delay=30) == [2, 4]
    assert time.perf_counter() - begin < 15


def test_one_failure_is_its_own() -> None:
    work = Recorder()
    results = submitted(work, [("a", 1), ("a", -1), ("a", 3)])
    assert (results[0], results[2]) == (2, 6)
    assert isinstance(results[1], ValueError)
    assert [items for _, items in work.batches] == [[1, -1, 3], [1], [-1], [3]]


@pytest.mark.parametrize("turns", range(8))
def test_a_batch_that_fills_later_does_not_wait(turns: int) -> None:
    """In whichever turn of the event loop the last item arrives."""

    async def run() -> list[int]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(Recorder(), thread, max_batch=2, max_delay=30)
            runner = asyncio.create_task(batcher.run())
            first = asyncio.create_task(batcher.submit("a", 1))
            for _ in range(turns):
                await asyncio.sleep(0)
            results = await asyncio.wait_for(asyncio.gather(first, batcher.submit("a", 2)), 10)
            runner.cancel()
            return results

    assert asyncio.run(run()) == [2, 4]


def test_who_left_takes_no_place_in_a_batch() -> None:
    work = Recorder()

    async def run() -> list[int]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(work, thread, max_batch=2, max_delay=0.5)
            runner = asyncio.create_task(batcher.run())
            gone = [asyncio.create_task(batcher.submit(key, 1)) for key in "ab"]
            await asyncio.sleep(0)
            for task in gone:
                task.cancel()
            results = await asyncio.gather(batcher.submit("a", 2), batcher.submit("a", 3))
            runner.cancel()
            return results

    assert asyncio.run(run()) == [4, 6]
    assert work.batches == [("a", [2, 3])]


def test_what_arrives_while_the_thread_works_is_collected_and_who_left_is_forgotten() -> None:
    gate = threading.Event()
    work = Recorder(gate)

    async def run() -> list[int]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(work, thread, max_batch=8, max_delay=0)
            runner = asyncio.create_task(batcher.run())
            first = asyncio.create_task(batcher.submit("a", 1))
            while not work.batches:
                await asyncio.sleep(0.001)
            later = [asyncio.create_task(batcher.submit("a", n)) for n in (2, 3, 4)]
            await asyncio.sleep(0)
            later[1].cancel()
            gate.set()
            results = [await first, await later[0], await later[2]]
            runner.cancel()
            return results

    assert asyncio.run(run()) == [2, 4, 8]
    assert work.batches == [("a", [1]), ("a", [2, 4])]


@pytest.mark.parametrize("count", [1, 2])
def test_the_queue_goes_on_after_a_failure(count: int) -> None:
    work = Recorder()
    results = submitted(work, [("a", -1)] * count + [("b", 1)])
    assert results[-1] == 2
