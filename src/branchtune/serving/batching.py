"""Requests wait for each other: one thread runs the model, on as many of them at once as share their tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Job(Generic[Key, Item, Result]):
    key: Key
    item: Item
    arrived: float
    result: asyncio.Future[Result]


class Batcher(Generic[Key, Item, Result]):
    """Collects items until a batch is full or its oldest item has waited long enough, and works on it in a thread.

    Only items of one key share a batch. What arrives while the thread works is collected meanwhile. A batch that fails
    is worked on again item by item, so that no item fails because of another one.

    Args:
        work: called in the thread with a key and its items; one result for each.
        thread: an executor of one thread.
        max_batch: items in a batch.
        max_delay: seconds that an item waits for others.
    """

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], list[Result]],
        thread: ThreadPoolExecutor,
        *,
        max_batch: int,
        max_delay: float,
    ) -> None:
        self._work, self._thread = work, thread
        self._max_batch, self._max_delay = max_batch, max_delay
        self._jobs: list[_Job[Key, Item, Result]] = []
        self._arrived = asyncio.Event()

    async def submit(self, key: Key, item: Item) -> Result:
        """The result of one item, which is not worked on any more where this is cancelled."""
        loop = asyncio.get_running_loop()
        job = _Job(key, item, loop.time(), loop.create_future())
        self._jobs.append(job)
        self._arrived.set()
        try:
            return await job.result
        finally:
            if job in self._jobs:
                self._jobs.remove(job)

    async def run(self) -> None:
        """Work on batches until cancelled."""
        while True:
            batch = await self._next()
            if batch:
                await self._work_on(batch)

    async def _next(self) -> list[_Job[Key, Item, Result]]:
        """The jobs of one batch; none where all of them were cancelled meanwhile."""
        while not self._jobs:
            self._arrived.clear()
            await self._arrived.wait()
        oldest = self._jobs[0]
        deadline = oldest.arrived + self._max_delay
        while True:
            self._arrived.clear()  # before counting: what arrives later ends the wait
            left = deadline - asyncio.get_running_loop().time()
            if len(self._like(oldest)) >= self._max_batch or left <= 0:
                break
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
        batch = self._like(oldest)[: self._max_batch]
        self._jobs = [job for job in self._jobs if job not in batch and not job.result.done()]
        return batch

    def _like(self, oldest: _Job[Key, Item, Result]) -> list[_Job[Key, Item, Result]]:
        return [job for job in self._jobs if job.key == oldest.key and not job.result.done()]

    async def _work_on(self, jobs: list[_Job[Key, Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._work, jobs[0].key, [job.item for job in jobs])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    if not job.result.done():
                        await self._work_on([job])
            elif not jobs[0].result.done():
                jobs[0].result.set_exception(error)
            return
        for job, result in zip(jobs, results, strict=True):
            if not job.result.done():
                job.result.set_result(result)
