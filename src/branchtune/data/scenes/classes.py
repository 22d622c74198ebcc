"""Names of everything a scene can hold, in label order."""

from __future__ import annotations

CLASSES = (
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "picture",
    "rug",
    "table",
    "chair",
    "cabinet",
    "bed",
    "sofa",
    "lamp",
    "plant",
    "clutter",
    "person",
)
"""Classes of the "semseg" label."""

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""Classes of the "parts" label."""

TEXTURES = ("plain", "checker", "stripes", "wood", "noise", "bricks")
"""Kinds of surface texture, the classes of the "floor_texture" and "wall_texture" labels."""

STRUCTURE = ("wall", "floor", "ceiling")
"""Classes without instances."""

SALIENT = ("chair", "lamp", "plant", "clutter", "person")
"""Classes whose instances can be salient: neither structure nor large furniture nor what hangs on a wall."""

CLASS = {name: index for index, name in enumerate(CLASSES)}
PART = {name: index for index, name in enumerate(PARTS)}
