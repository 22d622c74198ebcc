"""The endpoints: answers, refusals, loading, and batches."""

from __future__ import annotations

import base64
import dataclasses
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from branchtune.pictures.colour import picture
from branchtune.run.inference import ImageOutput, prepared, raw_outputs
from branchtune.serving.app import create_app
from branchtune.serving.examples import folder_examples
from branchtune.serving.limits import Limits
from branchtune.serving.schemas import Prediction
from branchtune.serving.served import Served
from served_model import encoded, image_level_served, loader, pixels, png_header, small_served

LOCAL = "http://localhost:8000"


def wait(client: TestClient) -> TestClient:
    while client.get("/health").json()["status"] != "ready":
        pass
    return client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return small_served(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[TestClient]:
    limits = Limits(max_bytes=200_000, max_pixels=10_000, max_delay_ms=200)
    with TestClient(create_app(loader(served), limits), LOCAL, raise_server_exceptions=False) as client:
        yield wait(client)


def predict(client: TestClient, data: bytes, **fields: Any) -> httpx.Response:
    return client.post("/predict", files={"image": ("image", data)}, data=fields)


def array(answer: Any, task: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(answer["tasks"][task]["npy"])))


def expected(served: Served, image: np.ndarray, tasks: list[str]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        raw = raw_outputs(served.model, prepared(image, served.transform)[None], tasks)
    return {
        name: ImageOutput(served.model.tasks[name], value[0], image.shape[:2]).prediction()
        for name, value in raw.items()
    }


def test_arrays_and_pictures_are_the_models_at_the_images_own_size(client: TestClient, served: Served) -> None:
    wanted = expected(served, pixels(), ["a", "b", "c"])
    arrays = predict(client, encoded(pixels()), format="npy").json()
    pictures = predict(client, encoded(pixels())).json()
    assert (arrays["width"], arrays["height"]) == (40, 24)
    for name, value in wanted.items():
        np.testing.assert_allclose(array(arrays, name), value.numpy(), rtol=1e-4, atol=1e-5)
        assert arrays["tasks"][name]["shape"] == list(value.shape)
        assert arrays["tasks"][name]["png"] is None
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures["tasks"][name]["png"]))))
        assert np.abs(shown.astype(int) - picture(served.model.tasks[name], value)).max() <= 1
    seen = Image.open(io.BytesIO(base64.b64decode(pictures["image"])))
    assert seen.size == (40, 24)


def test_nested_lists(client: TestClient) -> None:
    data = encoded(pixels())
    lists = predict(client, data, format="json", tasks=["c"]).json()["tasks"]
    assert list(lists) == ["c"]
    np.testing.assert_allclose(
        lists["c"]["values"], array(predict(client, data, format="npy").json(), "c"), rtol=1e-4, atol=1e-5
    )


def test_arrays_hold_predictions_and_scores_where_asked_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(pixels())
    arrays = predict(client, data, format="npy").json()
    assert {name: (str(array(arrays, name).dtype), array(arrays, name).shape) for name in "abc"} == {
        "a": ("float32", (24, 40)),
        "b": ("float32", (24, 40)),
        "c": ("uint8", (24, 40)),
    }
    scores = predict(client, data, format="npy", scores="true").json()
    assert scores["tasks"]["c"]["shape"] == [3, 24, 40]
    np.testing.assert_array_equal(array(scores, "c").argmax(0), array(arrays, "c"))
    np.testing.assert_array_equal(array(scores, "a"), array(arrays, "a"))
    lists = predict(client, data, format="json", scores="true", tasks=["c"]).json()
    np.testing.assert_allclose(lists["tasks"]["c"]["values"], array(scores, "c"), rtol=1e-4, atol=1e-5)
    assert predict(client, data, scores="true").json()["tasks"]["c"]["shape"] == [24, 40]
    monkeypatch.setattr("branchtune.serving.lengths.MOST_ARRAYS", 24 * 40 * 9)
    assert predict(client, data, format="npy").status_code == 200
    answer = predict(client, data, format="npy", scores="true")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "that is 0 MB of arrays, too much (at most 0 MB): ask without scores, for fewer tasks, or send a smaller image",
    )


def test_image_level_tasks_have_values(tmp_path: Path) -> None:
    with TestClient(create_app(loader(image_level_served(tmp_path))), LOCAL) as client:
        output = predict(wait(client), encoded(pixels())).json()["tasks"]["scene"]
        assert output["png"] is None
        assert (len(output["values"]), output["shape"]) == (7, [7])
        assert sum(output["values"]) == pytest.approx(1)
        assert client.get("/model").json()["tasks"][1]["picture"] is None


def test_fewer_tasks_need_fewer_nodes(client: TestClient, served: Served) -> None:
    everything = predict(client, encoded(pixels())).json()["timing"]
    assert [(n["level"], n["tasks"]) for n in everything["nodes"]] == [
        (node.level, list(node.tasks)) for node in served.model.tree.nodes()
    ]
    one = predict(client, encoded(pixels()), tasks=["c"]).json()["timing"]
    assert [n["tasks"] for n in one["nodes"]] == [["a", "b", "c"], ["a", "b", "c"], ["c"], ["c"]]
    assert [d["task"] for d in one["decoders"]] == ["c"]
    for timing in (everything, one):
        parts = timing["stem_ms"] + sum(timing["levels_ms"]) + sum(d["ms"] for d in timing["decoders"])
        assert parts == pytest.approx(timing["total_ms"])
        assert sum(n["ms"] for n in timing["nodes"]) == pytest.approx(sum(timing["levels_ms"]))
        assert min(timing["levels_ms"]) > 0
    assert not served.model.decoders["c"]._forward_pre_hooks


def test_requests_at_once_share_a_pass_and_their_answers_do_not_depend_on_it(
    client: TestClient, served: Served
) -> None:
    images = [pixels(24 + n, 40, seed=n) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = [
            answer.json()
            for answer in pool.map(
                lambda image: predict(client, encoded(image), tasks=["a", "c"], format="npy"), images
            )
        ]
    assert max(answer["timing"]["batch_size"] for answer in answers) > 1
    for image, answer in zip(images, answers, strict=True):
        for name, value in expected(served, image, ["a", "c"]).items():
            np.testing.assert_allclose(array(answer, name), value.numpy(), rtol=1e-4, atol=1e-5)


REFUSED = {
    "a text named .jpg": (b"hello", {}, 415, "this file is no image"),
    "nothing": (b"", {}, 415, "the file is empty"),
    "200 megapixels": (png_header(20_000, 10_000), {}, 413, "pixels that this server takes"),
    "too many pixels": (encoded(pixels(101, 100)), {}, 413, "100 x 101 = 10100 pixels, more than the 10000"),
    "half an image": (encoded(pixels())[:1500], {}, 422, "the image is damaged"),
    "an unknown task": (encoded(pixels()), {"tasks": ["aa"]}, 422, "unknown task 'aa': did you mean 'a'?"),
    "an unknown format": (encoded(pixels()), {"format": "gif"}, 422, "format: Input should be 'png', 'npy' or 'json'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_the_server_goes_on(client: TestClient, case: str) -> None:
    data, fields, status, detail = REFUSED[case]
    answer = predict(client, data, **fields)
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"]
    assert detail in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert predict(client, encoded(pixels())).status_code == 200


def test_requests_that_are_none(client: TestClient) -> None:
    assert client.post("/predict").json() == {"detail": "image: Field required"}
    assert client.post("/predict", data={"image": "text"}).status_code == 422
    broken = client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data; boundary=y"})
    assert broken.status_code in (400, 422)
    assert list(broken.json()) == ["detail"]
    for path in ("/nothing", "/..%2fapp.py", "/predict"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["detail"]


def test_a_long_body_is_refused_before_it_has_arrived(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        for _ in range(1000):
            sent += 100_000
            yield b"0" * 100_000

    answer = client.post("/predict", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("the request is longer than 0.2 MB: send less")
    announced = predict(client, b"0" * 200_000)
    assert (announced.status_code, announced.json()) == (413, answer.json())


def test_too_long_an_answer_in_json_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.serving.lengths.MOST_NUMBERS", 500)
    answer = predict(client, encoded(pixels()), format="json", tasks=["c"])
    assert answer.status_code == 422
    assert "960 numbers, too many for JSON (at most 500): ask for format npy" in answer.json()["detail"]


def test_an_error_of_the_model_is_one_requests_error(tmp_path: Path) -> None:
    served = small_served(tmp_path)
    with TestClient(create_app(loader(served)), LOCAL, raise_server_exceptions=False) as client:
        wait(client)
        whole = served.model.decoders["a"].forward
        served.model.decoders["a"].forward = lambda *_: 1 / 0  # type: ignore[method-assign]
        answer = predict(client, encoded(pixels()))
        assert answer.status_code == 500
        assert answer.json() == {
            "detail": "the server failed on this request (ZeroDivisionError): its output says more"
        }
        served.model.decoders["a"].forward = whole  # type: ignore[method-assign]
        assert predict(client, encoded(pixels())).status_code == 200


def test_requests_while_the_model_loads_are_told_to_come_again(served: Served) -> None:
    loaded = threading.Event()

    def load() -> Served:
        loaded.wait(30)
        return served

    with TestClient(create_app(load), LOCAL) as client:
        assert client.get("/health").json() == {"status": "loading"}
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: predict(client, encoded(pixels())), range(2)))
        for answer in (*answers, client.get("/model"), client.get("/examples")):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            assert answer.json() == {"detail": "the model is still loading: try again in a moment"}
        assert client.get("/").status_code == 200
        loaded.set()
        assert predict(wait(client), encoded(pixels())).status_code == 200


def test_a_model_that_cannot_be_loaded_is_reported() -> None:
    errors: list[BaseException] = []
    failed = threading.Event()

    def load() -> Served:
        raise ValueError("no model")

    def report(error: BaseException) -> None:
        errors.append(error)
        failed.set()

    with TestClient(create_app(load, on_failure=report), LOCAL) as client:
        assert failed.wait(10)
        assert client.get("/health").json() == {"status": "loading"}
    assert str(errors[0]) == "no model"


def test_other_names_than_localhost_are_refused(client: TestClient, served: Served) -> None:
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "192.168.0.1", "", "[", "a b"):
        answer = client.get("/health", headers={"host": host})
        assert answer.status_code == 403
        assert "localhost only" in answer.json()["detail"]
    with TestClient(create_app(loader(served), local_only=False), "http://any.example") as anywhere:
        assert anywhere.get("/health").status_code == 200


def test_an_image_longer_than_jpeg_allows_is_answered(served: Served) -> None:
    file = io.BytesIO()
    Image.new("RGB", (66_000, 1)).save(file, "PNG")
    with TestClient(create_app(loader(served)), LOCAL, raise_server_exceptions=False) as client:
        answer = predict(wait(client), file.getvalue(), format="png", tasks="a")
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(base64.b64decode(answer.json()["image"]))).size == (66_000, 1)


def test_no_other_site_may_read_answers_or_send_work(client: TestClient) -> None:
    for origin in ("https://evil.example", "null"):
        answer = client.get("/model", headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/model", headers={"origin": "http://localhost:8000"}).status_code == 200


def test_the_model_and_the_examples_are_described(client: TestClient, served: Served) -> None:
    model = client.get("/model").json()
    assert [task["name"] for task in model["tasks"]] == ["a", "b", "c"]
    assert model["tree"] == served.model.tree.to_json()["levels"]
    assert model["image_size"] == [32, 32]
    assert model["limits"]["max_bytes"] == 200_000
    assert client.get("/examples").json() == [{"name": "first.png", "url": "examples/0"}]
    example = client.get("/examples/0")
    assert example.headers["content-type"] == "image/png"
    assert predict(client, example.content).status_code == 200
    for index, status in ((1, 404), (-1, 404), ("x", 422)):
        assert client.get(f"/examples/{index}").status_code == status


@pytest.mark.parametrize("limits", [Limits(max_pixels=2400), Limits(max_bytes=9000)], ids=["pixels", "bytes"])
def test_every_image_to_try_is_one_that_the_server_takes(served: Served, tmp_path: Path, limits: Limits) -> None:
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.webp", "WEBP"), ("d.bmp", "BMP")):
        (tmp_path / name).write_bytes(encoded(pixels(120, 90), kind))
    examples = folder_examples(tmp_path, limits)
    app = create_app(loader(dataclasses.replace(served, examples=examples)), limits)
    with TestClient(app, LOCAL) as client:
        for entry in wait(client).get("/examples").json():
            answer = predict(client, client.get(entry["url"]).content, tasks=["a", "b", "c"])
            assert answer.status_code == 200, (entry, answer.text)


def test_the_description_is_true(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/health", "/model", "/examples", "/examples/{index}", "/predict"}
    responses = schema["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "403", "408", "413", "415", "422", "500", "503"}
    for path in ("/health", "/model", "/examples", "/examples/{index}"):
        assert {"403", "500"} < set(schema["paths"][path]["get"]["responses"])
    for status, response in responses.items():
        name = "Prediction" if status == "200" else "Problem"
        assert response["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    answer = predict(client, encoded(pixels())).json()
    assert set(answer) == set(schema["components"]["schemas"]["Prediction"]["properties"])
    assert set(answer["tasks"]["a"]) == set(schema["components"]["schemas"]["TaskOutput"]["properties"])
    assert Prediction.model_validate(answer)
    page = client.get("/docs").text
    assert "openapi.json" in page
    assert all(f"<td>{status}</td>" in page for status in set(responses) - {"200"})


@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_the_page_loads_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    text = client.get(path).text
    assert 'http-equiv="Content-Security-Policy"' in text
    assert "https://" not in text
    assert 'src="http' not in text


def test_limits_are_checked() -> None:
    for wrong, message in (
        ({"max_bytes": 0}, "max_bytes=0: must be at least 1"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"max_pixels": 10**9}, "max_pixels=1000000000: at most 89000000"),
        ({"max_delay_ms": -1}, "max_delay_ms=-1: must be a number of milliseconds"),
        ({"max_batch": 0}, "max_batch=0"),
    ):
        with pytest.raises(ValueError, match=message):
            Limits(**wrong)  # type: ignore[arg-type]
