"""An application behind a real server on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI


@contextmanager
def running(app: FastAPI, *, ready: bool = True) -> Iterator[str]:
    """Its address; its model is loaded, unless the test does not wait for that."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        address = f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
        until(lambda: not ready or httpx.get(f"{address}/health").json()["status"] == "ready")
        yield address
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def connected(address: str) -> socket.socket:
    """A client that reads nothing by itself, and little in advance."""
    url = httpx.URL(address)
    client = socket.socket()
    client.settimeout(60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", url.port))
    return client


def sent(address: str, image: bytes, *, body: bool = True, **fields: str) -> socket.socket:
    """A client that has sent POST /predict, or only its head, and does not wait."""
    request = httpx.Request("POST", f"{address}/predict", files={"image": ("image", image)}, data=fields)
    content = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    client = connected(address)
    client.sendall(f"POST /predict HTTP/1.1\r\n{head}\r\n".encode() + (content if body else b""))
    return client
