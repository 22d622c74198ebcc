"""A request's body is read as fast as it arrives, and given up once nothing of it does."""

from __future__ import annotations

import anyio
from fastapi import HTTPException
from starlette.types import Message, Receive

SECONDS_WITHOUT_A_BYTE = 30


def unless_stalled(receive: Receive) -> Receive:
    """The same `receive`, which waits no longer than half a minute for the next piece of the body.

    What comes after the body, that the client leaves, may take any time. A stalled body raises an HTTPException (408)
    in the reader: few requests are let in, and others wait for a place.

    Args:
        receive: of a request whose body has not been read.
    """
    whole = False

    async def received() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            with anyio.fail_after(SECONDS_WITHOUT_A_BYTE):
                message = await receive()
        except TimeoutError as error:
            reason = f"nothing of the request arrived for {SECONDS_WITHOUT_A_BYTE:g} seconds: send it again"
            raise HTTPException(408, reason, {"Connection": "close"}) from error
        whole = not message.get("more_body", False)
        return message

    return received
