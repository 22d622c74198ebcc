"""Requests that cost memory are admitted one by one, before their upload is read."""

from __future__ import annotations

from contextlib import AsyncExitStack

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from branchtune.serving.arriving import unless_stalled
from branchtune.serving.service import Service


class AdmittedRoute(APIRoute):
    """Its requests are admitted before FastAPI reads their body, and leave when their answer has been sent.

    One whose body stops arriving leaves as well.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: Service = scope["app"].state.service
        with service.admitted():
            async with AsyncExitStack() as held:
                scope["held"] = held
                await super().handle(scope, unless_stalled(receive), send)


def held_until_sent(request: Request) -> AsyncExitStack:
    """What is entered here is left when the answer has been sent, or the client has gone."""
    held: AsyncExitStack = request.scope["held"]
    return held
