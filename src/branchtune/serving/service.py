"""What the endpoints share: a model in a thread of its own, the queue before it, and what bounds the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from fastapi import HTTPException
from torch import Tensor

from branchtune.serving.batching import Batcher
from branchtune.serving.limits import ANSWERS, HELPERS, Limits
from branchtune.serving.served import Passed, Served

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Service:
    """One model behind one thread.

    Args:
        load: makes the model; called in the thread.
        limits: of the server.
        on_failure: called, in the event loop, with what `load` raised.

    Attributes:
        inside: requests that were admitted and have not left.
        answers: held by a request from when its answer is made until it is sent.
    """

    def __init__(self, load: Callable[[], Served], limits: Limits, on_failure: Callable[[BaseException], None]) -> None:
        self.limits = limits
        self._load, self._on_failure = load, on_failure
        self._served: Served | None = None
        self._batcher: Batcher[tuple[str, ...], Tensor, Passed] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="images")
        self._loading: Future[Served] | None = None
        self.inside = 0
        self.answers = asyncio.Semaphore(ANSWERS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load, in a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Nothing is worked on any more once this returns, but for a batch that is in the thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for threads in (self._thread, self._helpers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        self._loading = self._thread.submit(self._load)
        try:
            served = await asyncio.wrap_future(self._loading)
        except Exception as error:
            self._on_failure(error)
            return
        self._batcher = Batcher(
            served.predict,
            self._thread,
            max_batch=self.limits.max_batch,
            max_delay=self.limits.max_delay_ms / 1000,
        )
        self._served = served
        await self._batcher.run()

    @property
    def ready(self) -> bool:
        return self._served is not None

    @property
    def loading(self) -> bool:
        """Whether the thread is busy with the model, which nothing can interrupt."""
        return self._loading is not None and self._loading.running()

    @property
    def served(self) -> Served:
        """The model.

        Raises:
            HTTPException: 503 while it loads.
        """
        if self._served is None:
            raise HTTPException(503, "the model is still loading: try again in a moment", {"Retry-After": "2"})
        return self._served

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Around all of a request that sends an image.

        Raises:
            HTTPException: 503 while the model loads, or where too many are inside already.
        """
        _ = self.served
        if self.inside >= self.limits.max_inside:
            raise HTTPException(503, "too many requests wait already: try again", {"Retry-After": "1"})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def aside(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """What `work` returns in one of the few threads that decode images and make answers."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, partial(work, *args, **kwargs))

    async def predict(self, tasks: tuple[str, ...], image: Tensor) -> Passed:
        """What the model returns for one image, computed together with others that ask for the same tasks."""
        assert self._batcher is not None
        return await self._batcher.submit(tasks, image)
