"""`branchtune serve`: a real server process, and what it refuses to begin with."""

from __future__ import annotations

import importlib.util
import io
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from PIL import Image

from branchtune.cli.main import main
from branchtune.data.nyud import NYUDFiles
from branchtune.errors import UserError
from branchtune.serving.examples import folder_examples
from branchtune.serving.limits import Limits
from branchtune.serving.loading import check_servable, load_served
from finished_run import run_of
from served_model import encoded, pixels, png_header
from shipping_models import model_on, swin, weights_file


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_server_from_its_start_to_ctrl_c(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "branchtune", "serve", str(run_of(finished)), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.match(r"serving at (http://127\.0\.0\.1:(\d+)) \(Ctrl-C ends it\)", line)
            assert found, line
            address, port = found.groups()
            with httpx.Client(base_url=address, timeout=60) as client:
                while client.get("/health").json()["status"] == "loading":
                    time.sleep(0.2)
                with ThreadPoolExecutor(2) as pool:
                    answers = list(pool.map(lambda n: _post(address, encoded(pixels(seed=n))), range(2)))
                assert [answer.status_code for answer in answers] == [200, 200]
                assert _post(address, b"a text").status_code == 415
                assert set(answers[0].json()["tasks"]) == {"semseg", "depth", "normals", "edge"}
                assert len(client.get("/examples").json()) > 0
                assert _post(address, client.get("/examples/0").content).status_code == 200
            assert f"port {port} is in use: choose another with --port" in refused(
                [str(run_of(finished)), f"--port={port}"], capsys
            )
        finally:
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (output, errors) == ("stopped\n", "")


SLOW = """
import time
from branchtune.serving.limits import Limits
from branchtune.serving.server import serve

serve(lambda: time.sleep(120), Limits(), host="127.0.0.1", port=0)
"""


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_the_model_to_load() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().split()[2]
            assert httpx.get(f"{address}/health", timeout=60).json() == {"status": "loading"}
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == ("stopped\n", "")
        finally:
            process.kill()
    assert process.returncode == 0


def _post(address: str, data: bytes) -> httpx.Response:
    return httpx.post(f"{address}/predict", files={"image": ("image", data)}, timeout=60)


def test_what_holds_no_model_is_refused_at_once(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no folder: give a run directory" in refused([str(tmp_path / "none")], capsys)
    assert "is no run directory" in refused([str(tmp_path)], capsys)
    run = tmp_path / "run"
    shutil.copytree(run_of(finished), run)
    shutil.rmtree(run / "model")
    assert f"{run} has no model" in refused([str(run)], capsys)
    (run / "results.json").unlink()
    assert "is not finished" in refused([str(run)], capsys)


def test_a_model_that_cannot_be_loaded_ends_the_server(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of(finished), run)
    (run / "model" / "decoders.safetensors").write_bytes(b"nothing")
    assert "decoders.safetensors is damaged" in refused([str(run), "--port=0"], capsys)


def test_arguments_are_checked(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(run_of(finished))
    assert "max_batch=0: must be at least 1" in refused([run, "--max_batch=0"], capsys)
    assert "--port 70000: a port is a number" in refused([run, "--port=70000"], capsys)
    assert "no such address" in refused([run, "--host=no.such.host.invalid"], capsys)
    assert f"--examples {tmp_path}: holds no image" in refused([run, f"--examples={tmp_path}"], capsys)
    assert "no such folder" in refused([run, f"--examples={tmp_path / 'none'}"], capsys)


def test_an_address_of_another_machine(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused([str(run_of(finished)), "--host=192.0.2.1", "--port=0"], capsys)
    assert "cannot listen at 192.0.2.1:0" in message


def test_the_extra_is_named(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name))
    message = refused([str(run_of(finished))], capsys)
    assert "branchtune serve needs fastapi: pip install 'branchtune[serve]'" in message


def test_a_saved_models_folder(tmp_path: Path) -> None:
    model_on(swin(tmp_path)).save_pretrained(tmp_path / "saved")
    check_servable(tmp_path / "saved")
    served = load_served(tmp_path / "saved", backbone_checkpoint=str(weights_file(tmp_path)), low_memory="bfloat16")
    assert (served.name, served.transform.image_size, list(served.examples)) == ("saved", (32, 32), [])
    with pytest.raises(UserError, match="pass its path as backbone_checkpoint="):
        load_served(tmp_path / "saved")


def test_a_run_knows_its_backbone_and_its_images(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="--backbone_checkpoint is for a saved model's folder"):
        load_served(run_of(finished), backbone_checkpoint="file")
    run = tmp_path / "run"
    shutil.copytree(run_of(finished), run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(finished.parent / "nyud"), str(tmp_path / "gone")))
    assert list(load_served(run).examples) == []
    assert re.match(r"no images to try: .*gone", capsys.readouterr().err)


def test_data_of_a_users_own_that_cannot_be_read_leave_a_server_without_images(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: NYUDFiles, id_: str, split: str | None = None) -> NoReturn:
        raise KeyError("image")

    monkeypatch.setattr(NYUDFiles, "read", read)
    assert list(load_served(run_of(finished)).examples) == []
    assert capsys.readouterr().err == "no images to try: KeyError: 'image'\n"


def test_examples_of_a_folder(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index:02}.png").write_bytes(encoded(pixels()))
    (tmp_path / "notes.txt").write_text("no image")
    examples = folder_examples(tmp_path, Limits())
    assert [example.name for example in examples] == [f"{index:02}.png" for index in range(12)]
    assert examples[0].read() == encoded(pixels())
    assert examples[0].media_type == "image/png"


def test_examples_that_the_server_would_refuse_are_made_smaller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 60)))
    (tmp_path / "b.jpg").write_bytes(encoded(pixels(120, 90), "JPEG", exif=exif))
    (tmp_path / "c.jpg").write_bytes(b"damaged")
    (tmp_path / "d.png").write_bytes(png_header(20_000, 10_000))
    examples = folder_examples(tmp_path, Limits(max_pixels=2400))
    assert [example.name for example in examples] == ["a.png", "b.jpg", "c.jpg"]
    assert [example.source for example in examples[::2]] == [tmp_path / "a.png", tmp_path / "c.jpg"]
    smaller = Image.open(io.BytesIO(examples[1].read()))
    assert (smaller.format, smaller.size) == ("JPEG", (56, 42))
    assert re.fullmatch(
        r"not among the images to try: .*d\.png: more than 89 million pixels .*\n", capsys.readouterr().err
    )


def test_a_runs_examples_fit_into_the_limits(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = load_served(run_of(finished), limits=Limits(max_pixels=500)).examples
    assert images
    assert all(math.prod(Image.open(io.BytesIO(image.read())).size) <= 500 for image in images)
    assert list(load_served(run_of(finished), limits=Limits(max_bytes=100)).examples) == []
    assert capsys.readouterr().err == (
        "no images to try: max_bytes=100 is less than any image takes: start the server with more\n"
    )


def test_a_port_that_is_free_is_found() -> None:
    from branchtune.serving.server import _listen

    with _listen("localhost", 0) as listening:
        assert listening.getsockname()[1] > 0
        assert listening.family in (socket.AF_INET, socket.AF_INET6)
