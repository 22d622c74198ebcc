"""An answer is sent piece by piece, as fast as its client takes the pieces."""

from __future__ import annotations

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

SECONDS_FOR_A_PIECE = 60


class PiecewiseResponse(StreamingResponse):
    """Gives up a client that takes no piece for a minute: few answers fit in memory, and others wait for a place."""

    media_type = "application/json"

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            with anyio.fail_after(SECONDS_FOR_A_PIECE):
                await send(message)

        try:
            await super().stream_response(in_time)
        except TimeoutError:
            return  # an unfinished answer: the server closes the connection
