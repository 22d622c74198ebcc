"""Furniture: every piece draws its size, shape and materials from the scene's generator."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np
from numpy.typing import ArrayLike

from ._scene import Builder, Scene

SOLID = ("plain", "plain", "wood", "wood", "noise")
FABRIC = ("plain", "checker", "stripes", "noise")


def table(scene: Scene, base: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A table of width, depth and height `size`; round or square top, four legs or one foot."""
    b = Builder(scene, "table", base, yaw)
    w, d, h = np.asarray(size).tolist()
    top = b.palette.add(SOLID)
    leg = top if b.rng.random() < 0.5 else b.palette.add(("plain",))
    thick = b.rng.uniform(0.03, 0.07)
    if b.rng.random() < 0.3:
        radius = min(w, d) / 2
        b.frustum((0, 0, h - thick), thick, radius, radius, top)
        b.frustum((0, 0, 0.04), h - thick - 0.04, 0.05, 0.05, leg)
        b.frustum((0, 0, 0), 0.04, radius * 0.55, radius * 0.45, leg)
        return
    b.box((0, 0, h - thick / 2), (w, d, thick), top)
    _legs(b, w - 0.12, d - 0.12, h - thick, b.rng.uniform(0.05, 0.09), leg)


def chair(scene: Scene, base: ArrayLike, yaw: float, seat: float) -> None:
    """A chair that looks along its y axis, with the seat at height `seat`; with or without arm rests."""
    b = Builder(scene, "chair", base, yaw)
    frame = b.palette.add(SOLID)
    cloth = frame if b.rng.random() < 0.4 else b.palette.add(FABRIC)
    w, d, tall = b.rng.uniform(0.4, 0.5), b.rng.uniform(0.4, 0.48), b.rng.uniform(0.38, 0.55)
    b.box((0, 0, seat - 0.03), (w, d, 0.06), cloth)
    if b.rng.random() < 0.25:
        b.frustum((0, 0, 0), 0.05, w * 0.55, w * 0.45, frame)
        b.frustum((0, 0, 0.05), seat - 0.11, 0.035, 0.035, frame)
    else:
        _legs(b, w - 0.05, d - 0.05, seat - 0.06, 0.045, frame)
    b.box((0, -d / 2 + 0.02, seat + tall / 2), (w, 0.045, tall), cloth)
    if b.rng.random() < 0.25:
        for side in (-1, 1):
            b.box((side * w / 2, 0.02, seat + 0.2), (0.05, d * 0.8, 0.04), frame)


def cabinet(scene: Scene, base: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A cupboard with door fronts or an open shelf with things on it; its front is +y."""
    b = Builder(scene, "cabinet", base, yaw)
    w, d, h = np.asarray(size).tolist()
    body = b.palette.add(SOLID)
    if h > 0.9 and b.rng.random() < 0.5:
        b.box((0, -d / 2 + 0.01, h / 2), (w, 0.02, h), body)
        for side in (-1, 1):
            b.box((side * (w / 2 - 0.015), 0, h / 2), (0.03, d, h), body)
        shelves = int(b.rng.integers(3, 6))
        for z in np.linspace(0.05, h - 0.015, shelves):
            b.box((0, 0, z), (w, d, 0.03), body)
        for z in np.linspace(0.05, h - 0.015, shelves)[:-1]:
            if b.rng.random() < 0.6:
                _books(scene, b.world((b.rng.uniform(-0.2, 0.2) * w, 0, z + 0.015)), yaw, w * 0.45, d * 0.6)
        return
    b.box((0, 0, h / 2), (w, d, h), body)
    front = body if b.rng.random() < 0.4 else b.palette.add(SOLID)
    knob = b.palette.add(("plain",))
    columns, rows = max(1, round(w / 0.5)), max(1, round(h / b.rng.choice([0.35, 0.8])))
    if columns * rows > 6:
        rows = 1
    for i in range(columns):
        for j in range(rows):
            x, z = (i + 0.5) / columns * w - w / 2, (j + 0.5) / rows * h
            b.box((x, d / 2 + 0.01, z), (w / columns - 0.03, 0.02, h / rows - 0.03), front)
            b.box((x + 0.3 * w / columns, d / 2 + 0.03, z), (0.03, 0.03, 0.1), knob)


def bed(scene: Scene, base: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A bed with its head at -y: frame, mattress, blanket, pillows and a head board."""
    b = Builder(scene, "bed", base, yaw)
    w, d, h = np.asarray(size).tolist()
    frame, sheet = b.palette.add(SOLID), b.palette.add(FABRIC, light=(0.5, 0.95), chroma=0.3)
    blanket = b.palette.add(FABRIC)
    b.box((0, 0, h * 0.3), (w, d, h * 0.6), frame)
    b.box((0, 0.02, h * 0.8), (w - 0.06, d - 0.08, h * 0.4), sheet)
    b.box((0, d * 0.16, h * 0.83), (w + 0.02, d * 0.66, h * 0.4), blanket)
    b.box((0, -d / 2 + 0.03, h * 1.1), (w, 0.06, h * 2.2), frame)
    for x in (0.0,) if w < 1.2 else (-w / 4, w / 4):
        b.ellipsoid((x, -d / 2 + 0.3, h + 0.06), (min(w, 1.2) * 0.28, 0.2, 0.1), sheet)


def sofa(scene: Scene, base: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A sofa or armchair that looks along +y, with cushions; the seat is at height `size[2]`."""
    b = Builder(scene, "sofa", base, yaw)
    w, d, h = np.asarray(size).tolist()
    cloth = b.palette.add(FABRIC)
    arm = b.rng.uniform(0.12, 0.2)
    b.box((0, 0, h / 2), (w, d, h), cloth)
    b.box((0, -d / 2 + 0.11, h + 0.2), (w, 0.22, 0.45), cloth)
    for side in (-1, 1):
        b.box((side * (w - arm) / 2, 0, h * 0.75), (arm, d + 0.04, h * 1.5), cloth)
    if b.rng.random() < 0.6:
        cushion = b.palette.add(FABRIC)
        for x in b.rng.uniform(-0.3, 0.3, int(b.rng.integers(1, 3))) * w:
            b.box((x, -d / 2 + 0.3, h + 0.17), (0.38, 0.12, 0.34), cushion, yaw=b.rng.uniform(-0.3, 0.3))


def lamp(scene: Scene, base: ArrayLike, yaw: float, height: float) -> None:
    """A standing lamp: foot, pole and a shade that may glow."""
    b = Builder(scene, "lamp", base, yaw)
    pole = b.palette.add(("plain",))
    glow = 0.9 if b.rng.random() < 0.5 else 0.0
    shade = b.palette.add(("plain", "stripes"), light=(0.6, 0.95), chroma=0.4, glow=glow)
    size = b.rng.uniform(0.13, 0.2) * (0.6 + 0.25 * height)
    b.frustum((0, 0, 0), 0.04, size * 0.8, size * 0.6, pole)
    b.frustum((0, 0, 0.04), height - 0.04 - size, 0.02, 0.02, pole)
    if b.rng.random() < 0.25:
        b.ellipsoid((0, 0, height - size), (size, size, size), shade)
    else:
        b.frustum((0, 0, height - size * 1.6), size * 1.6, size, size * b.rng.uniform(0.45, 0.9), shade)


def plant(scene: Scene, base: ArrayLike, yaw: float, height: float) -> None:
    """A pot with a stem and foliage of ellipsoids, or of upright leaves."""
    b = Builder(scene, "plant", base, yaw)
    pot = b.palette.add(("plain", "stripes", "bricks"))
    green = np.array([b.rng.uniform(0.05, 0.3), b.rng.uniform(0.25, 0.55), b.rng.uniform(0.03, 0.2)])
    leaf = b.palette.add(("noise", "plain"), colour=green, scale=(0.03, 0.1))
    ph, pr = height * b.rng.uniform(0.22, 0.35), height * b.rng.uniform(0.12, 0.2)
    b.frustum((0, 0, 0), ph, pr * 0.75, pr, pot)
    if b.rng.random() < 0.5:
        b.frustum((0, 0, ph), height * 0.3, 0.02, 0.015, b.palette.add(("plain",), colour=green * 0.5))
        for _ in range(int(b.rng.integers(3, 6))):
            x, y = b.rng.uniform(-0.12, 0.12, 2) * height
            z = height * b.rng.uniform(0.6, 0.85)
            b.ellipsoid((x, y, z), b.rng.uniform(0.1, 0.2, 3) * height, leaf)
        return
    for angle in b.rng.uniform(0, 2 * pi) + np.arange(int(b.rng.integers(4, 7))) * 2.4:
        reach = height * b.rng.uniform(0.08, 0.32)
        tip = (reach * np.cos(angle), reach * np.sin(angle), height * b.rng.uniform(0.75, 1.0))
        b.capsule((0, 0, ph), tip, height * 0.03, leaf)


def clutter(scene: Scene, base: ArrayLike, yaw: float, size: float) -> None:
    """A small thing to lie on the floor or on furniture: ball, box, vase, cup, bottle or a pile of boxes."""
    b = Builder(scene, "clutter", base, yaw)
    material = b.palette.add(chroma=1.0, light=(0.2, 0.9), scale=(0.04, 0.12))
    kind = int(b.rng.integers(5))
    if kind == 0:
        b.ellipsoid((0, 0, size / 2), (size / 2,) * 3, material)
    elif kind == 1:
        b.box((0, 0, size * 0.4), size * np.array([b.rng.uniform(0.7, 1.4), b.rng.uniform(0.6, 1.0), 0.8]), material)
    elif kind == 2:
        b.frustum((0, 0, 0), size, size * b.rng.uniform(0.2, 0.4), size * b.rng.uniform(0.25, 0.5), material)
    elif kind == 3:
        b.frustum((0, 0, 0), size * 0.8, size * 0.25, size * 0.25, material)
        b.frustum((0, 0, size * 0.8), size * 0.5, size * 0.1, size * 0.08, material)
    else:
        b.box((0, 0, size * 0.3), (size, size * 0.8, size * 0.6), material)
        b.box((0, 0, size * 0.8), (size * 0.6, size * 0.5, size * 0.4), b.palette.add(), yaw=b.rng.uniform(-0.6, 0.6))


def hanging(scene: Scene, name: str, centre: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A window, door or picture on a wall: a flat box with an inner field; its front is +y."""
    b = Builder(scene, name, centre, yaw)
    w, d, h = np.asarray(size).tolist()
    frame = b.palette.add(SOLID, light=(0.3, 0.9))
    b.box((0, 0, 0), (w, d, h), frame)
    if name == "window":
        sky = np.array([0.55, 0.7, 0.9]) * b.rng.uniform(0.5, 1.3) + b.rng.uniform(-0.1, 0.1, 3)
        glass = b.palette.add(("plain", "noise"), colour=sky, scale=(0.3, 0.8), glow=1.0)
        for x in (-w / 4, w / 4) if w > 0.9 else (0.0,):
            b.box((x, d / 2, 0), ((0.5 if w > 0.9 else 1) * w - 0.1, 0.01, h - 0.12), glass)
    elif name == "picture":
        b.box((0, d / 2, 0), (w - 0.08, 0.01, h - 0.08), b.palette.add(chroma=1.0, scale=(0.05, 0.3)))
    else:
        panel = b.palette.add(SOLID)
        for z in (-h / 4, h / 4):
            b.box((0, d / 2, z), (w - 0.2, 0.015, h / 2 - 0.2), panel)
        b.ellipsoid((w / 2 - 0.08, d / 2 + 0.03, 0), (0.03, 0.03, 0.03), frame)


def rug(scene: Scene, base: ArrayLike, yaw: float, size: ArrayLike) -> None:
    """A rug, rectangular or round."""
    b = Builder(scene, "rug", base, yaw)
    w, d = np.asarray(size).tolist()
    cloth = b.palette.add(("checker", "stripes", "noise", "plain"), scale=(0.1, 0.4))
    if b.rng.random() < 0.3:
        b.frustum((0, 0, 0), 0.012, d / 2, d / 2, cloth)
    else:
        b.box((0, 0, 0.006), (w, d, 0.012), cloth)


def _legs(b: Builder, w: float, d: float, h: float, thick: float, material: int) -> None:
    upright: Callable[[float, float], None]
    if b.rng.random() < 0.5:

        def upright(x: float, y: float) -> None:
            b.box((x, y, h / 2), (thick, thick, h), material)
    else:

        def upright(x: float, y: float) -> None:
            b.frustum((x, y, 0), h, thick * 0.35, thick * 0.5, material)

    for x in (-w / 2, w / 2):
        for y in (-d / 2, d / 2):
            upright(x, y)


def _books(scene: Scene, base: ArrayLike, yaw: float, width: float, depth: float) -> None:
    b = Builder(scene, "clutter", base, yaw)
    x = -width / 2
    for _ in range(int(b.rng.integers(1, 4))):
        w, h = b.rng.uniform(0.05, 0.16), b.rng.uniform(0.12, 0.22)
        b.box((x + w / 2, 0, h / 2), (w, depth, h), b.palette.add(("plain", "stripes"), chroma=1.0))
        x += w + b.rng.uniform(0, 0.08)
