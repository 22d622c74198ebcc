"""What every request passes before it is read: whom it is meant for, and how long it is."""

from __future__ import annotations

import ipaddress

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import URL, Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def is_local(host: str) -> bool:
    """Whether only this machine can reach what is bound to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class LocalNamesOnly:
    """Refuses requests to another name than this machine's own, and those that a page of another site makes.

    Else a page of any site, whose name is made to point here once it is loaded (DNS rebinding), could read the answers;
    and its forms could send work, whose answers it cannot read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not is_local(_name(f"http://{headers.get('host', '')}")) or (origin and not is_local(_name(origin))):
                reason = "this server answers to localhost only: open it by that name, or start it with --host"
                await JSONResponse({"detail": reason}, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _name(url: str) -> str:
    try:
        return URL(url).hostname or ""
    except ValueError:
        return ""


class BodyLimit:
    """Refuses longer bodies: by their announced length, or else as soon as more has arrived.

    Args:
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = HTTPException(
            413, f"the request is longer than {self.most / 1e6:g} MB: send less, or start the server with --max_bytes"
        )
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self.most:
            await JSONResponse({"detail": refusal.detail}, refusal.status_code)(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.most:
                raise refusal
            return message

        await self.app(scope, counted, send)
