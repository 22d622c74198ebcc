"""Jointed figures: a sphere head, a torso and capsule limbs posed by random joint angles."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from numpy.typing import ArrayLike

from ._scene import Builder, Scene, Vector

POSES = ("stand", "walk", "wave", "reach", "sit")

_SKIN = ((0.75, 0.5, 0.38), (0.6, 0.36, 0.22), (0.35, 0.19, 0.11), (0.85, 0.62, 0.5))


def figure(scene: Scene, base: ArrayLike, yaw: float, pose: str, height: float, seat: float = 0.45) -> None:
    """Add a figure that looks along its y axis.

    Args:
        base: the point on the floor below the pelvis.
        pose: one of `POSES`.
        height: body height when standing, metres.
        seat: height of the seat when sitting, metres.
    """
    b = Builder(scene, "person", base, yaw)
    rng, s = b.rng, height / 1.75
    skin = b.palette.add(("plain",), colour=np.array(_SKIN[rng.integers(len(_SKIN))]) * rng.uniform(0.8, 1.1))
    shirt = b.palette.add(("plain", "plain", "stripes", "checker", "noise"), chroma=1.0, scale=(0.05, 0.12))
    trousers = b.palette.add(("plain", "noise"), light=(0.05, 0.6), chroma=0.9)
    shoes, hair = (b.palette.add(("plain",), light=(0.03, 0.4)) for _ in range(2))
    sleeve = shirt if rng.random() < 0.5 else skin
    hose = trousers if rng.random() < 0.75 else skin

    hip_height = (seat + 0.09 * s) if pose == "sit" else 0.86 * s
    lean = rng.uniform(-0.12, 0.15)
    pelvis = np.array([0.0, 0.0, hip_height])
    up = np.array([rng.uniform(-0.06, 0.06), sin(lean), cos(lean)])
    chest, neck = pelvis + 0.36 * s * up, pelvis + 0.55 * s * up
    b.capsule(pelvis + 0.02 * s * up, chest, 0.145 * s, shirt, "torso")
    for side in (-1, 1):
        b.capsule(chest, chest + s * np.array([side * 0.12, 0, 0.04]), 0.085 * s, shirt, "torso")

    turn = rng.uniform(-0.5, 0.5)
    head = neck + 0.09 * s * up + np.array([0.03 * sin(turn), 0.02, 0.0])
    b.capsule(chest, neck, 0.055 * s, skin, "head")
    b.ellipsoid(head, s * np.array([0.095, 0.105, 0.125]), skin, "head")
    b.ellipsoid(head + s * np.array([0, -0.025, 0.04]), s * np.array([0.102, 0.1, 0.105]), hair, "head")

    for side in (-1, 1):
        _arm(b, chest + s * np.array([side * 0.2, 0, 0.03]), side, pose, s, shirt, sleeve, skin)
        _leg(b, pelvis + s * np.array([side * 0.09, 0, -0.03]), side, pose, s, trousers, hose, shoes)


def _direction(swing: float, spread: float, side: int) -> Vector:
    """Unit vector of a limb hanging down, swung forward by `swing` and outward by `spread` (radians)."""
    return np.array([side * sin(spread), cos(spread) * sin(swing), -cos(spread) * cos(swing)])


def _arm(b: Builder, shoulder: Vector, side: int, pose: str, s: float, upper: int, lower: int, skin: int) -> None:
    rng = b.rng
    swing, spread, bend = rng.uniform(-0.4, 0.5), rng.uniform(0.08, 0.35), rng.uniform(0.1, 0.9)
    if pose == "wave" and (side == 1 or rng.random() < 0.25):
        swing, spread, bend = rng.uniform(-0.2, 0.8), rng.uniform(1.3, 2.6), rng.uniform(0.3, 1.2)
    elif pose == "reach":
        swing, spread, bend = rng.uniform(0.9, 1.7), rng.uniform(0.0, 0.4), rng.uniform(0.0, 0.5)
    elif pose == "sit":
        swing, bend = rng.uniform(0.2, 0.8), rng.uniform(0.5, 1.5)
    elbow = shoulder + 0.29 * s * _direction(swing, spread, side)
    hand = elbow + 0.26 * s * _direction(swing + bend, spread * rng.uniform(0.3, 1.2), side)
    b.capsule(shoulder, elbow, 0.052 * s, upper, "upper arm")
    b.capsule(elbow, hand, 0.042 * s, lower, "lower arm")
    b.ellipsoid(hand, (0.055 * s,) * 3, skin, "lower arm")


def _leg(b: Builder, hip: Vector, side: int, pose: str, s: float, upper: int, lower: int, shoe: int) -> None:
    rng = b.rng
    thigh, shin = 0.41 * s, 0.4 * s
    swing, spread, bend = rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.08)
    if pose == "walk":
        swing, bend = side * rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.45)
    elif pose == "sit":
        swing, spread, bend = pi / 2 - rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.25), rng.uniform(1.2, 1.7)
    knee = hip + thigh * _direction(swing, spread, side)
    ankle = knee + shin * _direction(swing - bend, spread * 0.5, side)
    ankle[2] = max(ankle[2], 0.06 * s)
    b.capsule(hip, knee, 0.075 * s, upper, "upper leg")
    b.capsule(knee, ankle, 0.055 * s, lower, "lower leg")
    b.ellipsoid(ankle + s * np.array([0, 0.06, -0.02]), s * np.array([0.05, 0.13, 0.045]), shoe, "lower leg")
