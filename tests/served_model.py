"""A small model to serve, and images to send to it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import branchtune as bt
from branchtune.data.transforms import Transform
from branchtune.serving.examples import Example
from branchtune.serving.served import Served
from shipping_models import model_on, swin


def small_served(folder: Path, **arguments: Any) -> Served:
    """Tasks a (depth), b (edges), c (classes) at 32x32; a and b part before the last level."""
    model = model_on(swin(folder), **arguments)
    transform = Transform({}, (32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Served("small", model, transform, torch.device("cpu"), [Example("first.png", encoded(pixels()))])


def image_level_served(folder: Path) -> Served:
    """A depth task, and a class per image."""
    tasks = [bt.Depth("depth"), bt.ImageClassification("scene", num_classes=7)]
    return small_served(folder, tasks=tasks, tree=None)


def pixels(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def encoded(content: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A png that says how large it is, and no more."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def loader(served: Served) -> Callable[[], Served]:
    return lambda: served
