"""`branchtune serve RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.cli.arguments import add_low_memory
from branchtune.installed import check_installed
from branchtune.serving.limits import Limits
from branchtune.settings import parse

TEXT = """Open a page in which people try a run's model on images, and an endpoint for programs (POST /predict,
described at /docs and in /openapi.json). RUN is a finished run's directory, or a folder that save_pretrained wrote.
Only this machine can reach it unless --host says otherwise. Requests that ask for the same tasks share a pass."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune serve", description=TEXT)
    parser.add_argument("run", type=str, help="run directory, or a saved model's folder")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="0.0.0.0 lets other machines in, without password"
    )
    parser.add_argument("--examples", type=str | None, default=None, help="folder of images to try; default: the run's")
    parser.add_argument("--max_bytes", type=int, default=Limits.max_bytes, help="of one request")
    parser.add_argument("--max_pixels", type=int, default=Limits.max_pixels, help="of one image")
    parser.add_argument(
        "--max_delay_ms", type=float, default=Limits.max_delay_ms, help="how long a request waits for others"
    )
    parser.add_argument("--max_batch", type=int, default=Limits.max_batch, help="images in one pass of the model")
    parser.add_argument(
        "--backbone_checkpoint", type=str | None, default=None, help="file of the backbone's weights, for a saved model"
    )
    add_low_memory(parser)
    options = parse(parser, argv)
    limits = Limits(options.max_bytes, options.max_pixels, options.max_delay_ms, options.max_batch)
    check_installed("branchtune serve", "serve", "fastapi", "uvicorn", "python_multipart")
    from branchtune.serving.examples import folder_examples
    from branchtune.serving.loading import check_servable, load_served
    from branchtune.serving.server import serve

    source = Path(options.run)
    check_servable(source)
    examples = None if options.examples is None else folder_examples(Path(options.examples), limits)
    load = partial(
        load_served,
        source,
        backbone_checkpoint=options.backbone_checkpoint,
        low_memory=options.low_memory,
        examples=examples,
        limits=limits,
    )
    serve(load, limits, host=options.host, port=options.port)
