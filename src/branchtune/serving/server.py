"""Run the application with uvicorn until it is interrupted."""

from __future__ import annotations

import errno
import os
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from PIL import Image

from branchtune.errors import UserError
from branchtune.serving.app import create_app
from branchtune.serving.guards import is_local
from branchtune.serving.limits import Limits
from branchtune.serving.served import Served

SECONDS_TO_FINISH = 5


def serve(load: Callable[[], Served], limits: Limits, *, host: str, port: int) -> None:
    """Serve until Ctrl-C; while the model loads, that ends the whole process.

    Args:
        load: makes the model, while the server answers already.
        limits: of the server.
        host: address to bind to; where it is not this machine's own, other machines reach the server.
        port: 0 for any that is free.

    Raises:
        UserError: the port is in use, the address is not of this machine, or the model cannot be loaded.
    """
    listening = _listen(host, port)
    failures: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(load, limits, local_only=is_local(host), on_failure=give_up)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_FINISH)
    )
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused by our own limit
    name = f"[{host}]" if ":" in host else host
    print(f"serving at http://{name}:{listening.getsockname()[1]} (Ctrl-C ends it); the model is loading", flush=True)
    if not is_local(host):
        print(f"{host}: other machines can reach this server, which asks nobody for a password", file=sys.stderr)
    with listening, suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
        server.run(sockets=[listening])
    if failures:
        raise failures[0]
    print("stopped", flush=True)
    if app.state.service.loading:  # Python would wait for the thread until the model is there
        sys.stderr.flush()
        os._exit(0)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port is a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"--host {host}: no such address, use 127.0.0.1 or one of this machine's") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: choose another with --port, or 0 for any that is free") from error
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}): choose another --host or --port"
        ) from error
    return listening
