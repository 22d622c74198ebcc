"""Many requests, clients that leave, and what bounds the memory: on a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from torch import Tensor

from branchtune.serving import predicting
from branchtune.serving.app import create_app
from branchtune.serving.arriving import unless_stalled
from branchtune.serving.limits import HELPERS, Limits
from branchtune.serving.sending import PiecewiseResponse
from branchtune.serving.served import Passed, Served
from running_server import running, sent, until
from served_model import encoded, loader, pixels, small_served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return small_served(tmp_path_factory.mktemp("model"))


class Passes:
    """Counts the passes of models, which wait for the gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.gate = 0, threading.Event()
        whole = Served.predict

        def predict(served: Served, tasks: Sequence[str], images: Sequence[Tensor]) -> list[Passed]:
            self.count += 1
            self.gate.wait(60)
            return whole(served, tasks, images)

        monkeypatch.setattr(Served, "predict", predict)


class Counted:
    """A function that counts its calls, and how many of them there were at once."""

    def __init__(self, function: Callable[..., Any], gate: threading.Event | None = None) -> None:
        self.function, self.gate = function, gate
        self.calls, self.inside, self.most, self.lock = 0, 0, 0, threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        with self.lock:
            self.calls, self.inside = self.calls + 1, self.inside + 1
            self.most = max(self.most, self.inside)
        if self.gate is not None:
            self.gate.wait(60)
        try:
            return self.function(*arguments)
        finally:
            with self.lock:
                self.inside -= 1


def post(address: str, image: bytes, **fields: str) -> httpx.Response:
    return httpx.post(f"{address}/predict", files={"image": ("image", image)}, data=fields, timeout=60)


def test_nothing_is_computed_for_clients_that_have_gone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    app = create_app(loader(served), Limits(max_batch=1, max_delay_ms=0))
    with running(app) as address:
        clients = [sent(address, encoded(pixels())) for _ in range(6)]
        until(lambda: app.state.service.inside == 6 and passes.count == 1)
        for client in clients:
            client.close()
        until(lambda: app.state.service.inside == 0)
        passes.gate.set()
        assert post(address, encoded(pixels())).status_code == 200
    assert passes.count == 2


def test_too_many_are_refused_before_they_send_their_image(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    app = create_app(loader(served), Limits(max_batch=1))
    with running(app) as address:
        clients = [sent(address, encoded(pixels())) for _ in range(8)]
        until(lambda: app.state.service.inside == 8)
        with sent(address, encoded(pixels()), body=False) as refused:
            answer = refused.recv(4096)
            while b"}" not in answer:
                answer += refused.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert answer.endswith(b'{"detail":"too many requests wait already: try again"}')
        passes.gate.set()
        for client in clients:
            with client:
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        until(lambda: app.state.service.inside == 0)


def test_an_upload_that_stalls_loses_its_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(loader(served), Limits(max_batch=1))
    with running(app) as address:
        with monkeypatch.context() as patch, sent(address, encoded(pixels()), body=False) as stalled:
            patch.setattr("branchtune.serving.arriving.SECONDS_WITHOUT_A_BYTE", 0.2)
            stalled.sendall(b"--")
            answer = b""
            while part := stalled.recv(4096):
                answer += part
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'{"detail":"nothing of the request arrived for 0.2 seconds: send it again"}')
        until(lambda: app.state.service.inside == 0)
        assert post(address, encoded(pixels())).status_code == 200


def test_an_upload_may_be_slow_as_long_as_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.serving.arriving.SECONDS_WITHOUT_A_BYTE", 0.5)
    messages: list[Any] = [{"type": "http.request", "body": b"0", "more_body": index < 7} for index in range(8)]
    messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        message = messages.pop(0)
        await anyio.sleep(0.1 if messages else 0.7)
        return message

    async def everything() -> list[str]:
        received = unless_stalled(receive)
        return [(await received())["type"] for _ in range(9)]

    assert asyncio.run(everything()) == [*["http.request"] * 8, "http.disconnect"]


def test_few_images_are_decoded_and_few_answers_made_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, making = Counted(predicting.open_upload), Counted(predicting.answer)
    monkeypatch.setattr(predicting, "open_upload", opening)
    monkeypatch.setattr(predicting, "answer", making)
    with running(create_app(loader(served))) as address, ThreadPoolExecutor(8) as pool:
        image = encoded(pixels(300, 400))
        assert {answer.status_code for answer in pool.map(lambda _: post(address, image), range(16))} == {200}
    for counted in (opening, making):
        assert counted.calls == 16
        assert counted.most <= HELPERS


def test_an_answer_keeps_its_place_until_it_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.serving.service.ANSWERS", 1)
    passes, making = Passes(monkeypatch), Counted(predicting.answer)
    passes.gate.set()
    monkeypatch.setattr(predicting, "answer", making)
    large = encoded(np.zeros((2000, 2000, 3), np.uint8))  # 16 MB of depths, more than the connection buffers
    app = create_app(loader(served))
    with running(app) as address, ThreadPoolExecutor(1) as pool:
        slow = sent(address, large, tasks="a", format="npy")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        other = pool.submit(post, address, encoded(pixels()))
        until(lambda: passes.count == 2)
        with pytest.raises(NotYet):
            other.result(0.3)
        assert making.calls == 1
        assert httpx.get(f"{address}/health").json() == {"status": "ready"}
        slow.close()
        assert other.result(60).status_code == 200
        until(lambda: app.state.service.inside == 0)


def test_others_are_answered_while_an_answer_is_made(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    making = Counted(predicting.answer, gate)
    monkeypatch.setattr(predicting, "answer", making)
    with running(create_app(loader(served))) as address, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, address, encoded(pixels()))
        until(lambda: making.calls == 1)
        assert httpx.get(f"{address}/health").json() == {"status": "ready"}
        assert not waiting.done()
        gate.set()
        assert waiting.result(60).status_code == 200


def test_an_answer_that_cannot_be_made_is_one_requests_error(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    app = create_app(loader(served))
    with monkeypatch.context() as patch, running(app) as address:
        patch.setattr(predicting, "answer", broken)
        refused = post(address, encoded(pixels()))
        assert refused.status_code == 500
        assert "the server failed on this request (ZeroDivisionError)" in refused.json()["detail"]
        patch.undo()
        assert post(address, encoded(pixels())).status_code == 200


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.serving.sending.SECONDS_FOR_A_PIECE", 0.05)
    messages = []

    async def send(message: Any) -> None:
        messages.append(message["type"])
        if len(messages) == 2:
            await anyio.sleep_forever()

    async def receive() -> Any:
        await anyio.sleep_forever()

    response = PiecewiseResponse(iter([b"1", b"2", b"3"]))
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    asyncio.run(asyncio.wait_for(response(scope, receive, send), 30))
    assert messages == ["http.response.start", "http.response.body"]
