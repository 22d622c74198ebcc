"""What the endpoints share: a model that loads in the thread which runs it later, and the queue before that thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fastapi import HTTPException

from branchtune.serving.batching import Batcher, Busy
from branchtune.serving.limits import Limits
from branchtune.serving.schemas import Prediction
from branchtune.serving.served import Request, Served


class Service:
    """One model behind one thread.

    Args:
        load: makes the model; called in the thread.
        limits: of the server.
        on_failure: called, in the event loop, with what `load` raised.
    """

    def __init__(self, load: Callable[[], Served], limits: Limits, on_failure: Callable[[BaseException], None]) -> None:
        self.limits = limits
        self._load, self._on_failure = load, on_failure
        self._served: Served | None = None
        self._batcher: Batcher[tuple[str, ...], Request, Prediction] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loading: Future[Served] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load, in a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Nothing is worked on any more once this returns, but for a batch that is in the thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

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
            max_waiting=self.limits.max_waiting,
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

    async def predict(self, tasks: Sequence[str], request: Request) -> Prediction:
        """The answer for one image, computed together with others that ask for the same tasks.

        Raises:
            HTTPException: 503 while the model loads, or where too many wait already.
        """
        served = self.served
        assert self._batcher is not None
        order = tuple(name for name in served.model.tasks if name in tasks)
        try:
            return await self._batcher.submit(order, request)
        except Busy:
            raise HTTPException(503, "too many requests wait already: try again", {"Retry-After": "1"}) from None
