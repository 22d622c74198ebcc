"""Procedural indoor scenes with exact dense labels: rooms, furniture and jointed figures, ray cast in closed form."""

from __future__ import annotations

from .classes import CLASSES, PARTS, SALIENT, STRUCTURE, TEXTURES
from .dataset import Scenes
from .render import DENSE_LABELS, IMAGE_LABELS, LABELS, render_scene

__all__ = [
    "CLASSES",
    "DENSE_LABELS",
    "IMAGE_LABELS",
    "LABELS",
    "PARTS",
    "SALIENT",
    "STRUCTURE",
    "TEXTURES",
    "Scenes",
    "render_scene",
]
