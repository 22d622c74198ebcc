"""Composes a random room: where furniture, figures, lights and the camera go."""

from __future__ import annotations

from math import atan2, cos, pi, radians, sin, tan

import numpy as np

from . import _furniture as furniture
from ._figure import POSES, figure
from ._materials import Palette
from ._scene import Camera, Light, Scene, Vector


class _Floor:
    """Footprints taken so far, as axis-aligned rectangles."""

    def __init__(self, size: Vector) -> None:
        self.size = size
        self.taken: list[tuple[float, float, float, float]] = []

    def take(self, x: float, y: float, w: float, d: float, wall: float = 0.0) -> bool:
        """Reserve a rectangle if it lies in the room, `wall` metres off the walls, and is free."""
        box = (x - w / 2, y - d / 2, x + w / 2, y + d / 2)
        if box[0] < wall or box[1] < wall or box[2] > self.size[0] - wall or box[3] > self.size[1] - wall:
            return False
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self.taken):
            return False
        self.taken.append(box)
        return True


def compose(rng: np.random.Generator) -> Scene:
    """Draw a scene."""
    size = np.array([rng.uniform(3.0, 6.0), rng.uniform(3.0, 6.0), rng.uniform(2.3, 3.1)])
    scene = Scene(size, Palette(rng))
    _surfaces(scene)
    _camera(scene)
    floor = _Floor(size)
    floor.take(scene.camera.position[0], scene.camera.position[1], 1.3, 1.3, wall=-2.0)
    _hang(scene)
    _wall_furniture(scene, floor)
    _figures(scene, floor)
    _free_furniture(scene, floor)
    if rng.random() < 0.5:
        x, y = _spot(scene)
        furniture.rug(scene, (x, y, 0), rng.uniform(0, pi), rng.uniform((1.0, 0.8), (2.2, 1.5)))
    _lights(scene)
    return scene


def _surfaces(scene: Scene) -> None:
    palette = scene.palette
    wall = palette.add(("plain", "plain", "stripes", "bricks", "noise"), (0.35, 0.9), 0.5, (0.12, 0.5))
    accent = wall if palette.rng.random() < 0.6 else palette.add(light=(0.2, 0.8), scale=(0.15, 0.5))
    floor = palette.add(("plain", "checker", "wood", "wood", "noise", "bricks"), (0.15, 0.75), 0.5, (0.12, 0.5))
    ceiling = palette.add(("plain",), light=(0.7, 0.95), chroma=0.15)
    faces = [wall, wall, wall, wall]
    faces[int(palette.rng.integers(4))] = accent
    scene.room_materials = [*faces, floor, ceiling]


def _camera(scene: Scene) -> None:
    rng, size = scene.palette.rng, scene.size
    inset = rng.uniform(0.25, 0.7)
    x, y = rng.uniform(0.15, 0.85, 2) * size[:2]
    x, y = (
        (rng.choice([inset, size[0] - inset]), y) if rng.random() < 0.5 else (x, rng.choice([inset, size[1] - inset]))
    )
    target = size[:2] * rng.uniform(0.35, 0.65, 2)
    yaw = atan2(target[1] - y, target[0] - x) + rng.normal(0, 0.2)
    pitch, roll = rng.uniform(-0.03, 0.45), rng.normal(0, 0.03)
    height = rng.uniform(0.9, min(2.0, size[2] - 0.3))
    forward = np.array([cos(pitch) * cos(yaw), cos(pitch) * sin(yaw), -sin(pitch)])
    right = np.array([sin(yaw), -cos(yaw), 0.0])
    down = np.cross(forward, right)
    axes = np.stack((cos(roll) * right + sin(roll) * down, cos(roll) * down - sin(roll) * right, forward))
    focal = 1 / tan(radians(rng.uniform(58, 82)) / 2)
    scene.camera = Camera(np.array([x, y, height]), axes, focal, yaw, pitch, roll)


def _spot(scene: Scene, near: float = 1.1, far: float = 4.5, wide: float = 0.9) -> tuple[float, float]:
    """A random point on the floor in front of the camera, perhaps outside the room."""
    rng, camera = scene.palette.rng, scene.camera
    angle = camera.yaw + rng.uniform(-1, 1) * wide * np.arctan(1 / camera.focal)
    distance = near + (far - near) * rng.random() ** 0.8
    return camera.position[0] + distance * cos(angle), camera.position[1] + distance * sin(angle)


def _along_wall(scene: Scene, wall: int, depth: float, at: float) -> tuple[float, float, float]:
    """Centre and yaw of something `depth` deep whose back is on a wall (0..3: x-, x+, y-, y+), `at` metres along it."""
    w, d = scene.size[:2]
    return (
        (depth / 2, at, -pi / 2),
        (w - depth / 2, at, pi / 2),
        (at, depth / 2, 0.0),
        (at, d - depth / 2, pi),
    )[wall]


def _hang(scene: Scene) -> None:
    rng = scene.palette.rng
    used: dict[int, list[tuple[float, float]]] = {0: [], 1: [], 2: [], 3: []}
    names = ["window"] * int(rng.integers(0, 3)) + ["door"] * int(rng.integers(0, 2))
    names += ["picture"] * int(rng.integers(0, 5))
    for name in names:
        if name == "window":
            w, h, z = rng.uniform(0.7, 1.8), rng.uniform(0.8, 1.3), 1.5
        elif name == "door":
            w, h, z = rng.uniform(0.75, 0.95), 2.0, 1.0
        else:
            w, h, z = rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.8), rng.uniform(1.4, 1.75)
        wall = int(rng.integers(4))
        length = scene.size[1 if wall < 2 else 0]
        at = rng.uniform(w / 2 + 0.1, length - w / 2 - 0.1)
        if any(abs(at - a) < (w + b) / 2 + 0.1 for a, b in used[wall]):
            continue
        used[wall].append((at, w))
        x, y, yaw = _along_wall(scene, wall, 0.04, at)
        furniture.hanging(scene, name, (x, y, z), yaw, (w, 0.04, h))


def _wall_furniture(scene: Scene, floor: _Floor) -> None:
    rng = scene.palette.rng
    for _ in range(int(rng.integers(2, 6))):
        name = ("bed", "sofa", "cabinet", "cabinet")[int(rng.integers(4))]
        if name == "bed":
            w, d, h = rng.uniform(0.9, 1.7), rng.uniform(1.9, 2.1), rng.uniform(0.38, 0.55)
        elif name == "sofa":
            w, d, h = rng.uniform(0.8, 2.1), rng.uniform(0.75, 0.95), rng.uniform(0.36, 0.46)
        else:
            w, d, h = (
                rng.uniform(0.5, 1.5),
                rng.uniform(0.3, 0.55),
                rng.choice([0.5, 0.8, 1.4, 1.9]) * rng.uniform(0.9, 1.1),
            )
        for _ in range(8):
            wall = int(rng.integers(4))
            at = rng.uniform(0, scene.size[1 if wall < 2 else 0])
            x, y, yaw = _along_wall(scene, wall, d + 0.08, at)
            along, across = (d, w) if wall < 2 else (w, d)
            if floor.take(x, y, along + 0.04, across + 0.04):
                break
        else:
            continue
        if name == "bed":
            furniture.bed(scene, (x, y, 0), yaw, (w, d, h))
        elif name == "sofa":
            furniture.sofa(scene, (x, y, 0), yaw, (w, d, h))
            if w > 1.2 and rng.random() < 0.12:
                _sitter(scene, x, y, yaw, h)
        else:
            furniture.cabinet(scene, (x, y, 0), yaw, (w, d, h))
            if h < 1.3:
                _top(scene, x, y, yaw, w, d, h)


def _sitter(scene: Scene, x: float, y: float, yaw: float, seat: float) -> None:
    figure(scene, (x, y, 0), yaw, "sit", scene.palette.rng.uniform(1.5, 1.9), seat)


def _top(scene: Scene, x: float, y: float, yaw: float, w: float, d: float, h: float) -> None:
    """Put small things on a surface of extents w, d at height h."""
    rng = scene.palette.rng
    for _ in range(int(rng.integers(0, 4))):
        u, v = rng.uniform(-0.4, 0.4) * w, rng.uniform(-0.25, 0.25) * d
        place = (x + u * cos(yaw) - v * sin(yaw), y + u * sin(yaw) + v * cos(yaw), h)
        kind = rng.random()
        if kind < 0.15:
            furniture.lamp(scene, place, yaw, rng.uniform(0.35, 0.55))
        elif kind < 0.3:
            furniture.plant(scene, place, yaw, rng.uniform(0.25, 0.5))
        else:
            furniture.clutter(scene, place, rng.uniform(0, pi), rng.uniform(0.1, 0.28))


def _figures(scene: Scene, floor: _Floor) -> None:
    rng = scene.palette.rng
    if rng.random() > 0.62:
        return
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
        pose = POSES[int(rng.integers(len(POSES)))]
        for _ in range(12):
            x, y = _spot(scene, 1.3, 3.6, 0.75)
            if floor.take(x, y, 0.65, 0.65, wall=0.1):
                break
        else:
            continue
        yaw = rng.uniform(-pi, pi)
        if pose == "sit":
            seat = rng.uniform(0.42, 0.5)
            furniture.chair(scene, (x, y, 0), yaw, seat)
            _sitter(scene, x, y, yaw, seat)
        else:
            figure(scene, (x, y, 0), yaw, pose, rng.uniform(1.35, 1.95))


def _free_furniture(scene: Scene, floor: _Floor) -> None:
    rng = scene.palette.rng
    if rng.random() < 0.65:
        _table_group(scene, floor)
    for name, most in (("chair", 2), ("lamp", 1), ("plant", 2), ("clutter", 4)):
        for _ in range(int(rng.integers(0, most + 1))):
            side = {"chair": 0.6, "lamp": 0.45, "plant": 0.5, "clutter": 0.4}[name]
            for _ in range(6):
                x, y = _spot(scene)
                if floor.take(x, y, side, side):
                    break
            else:
                continue
            if name == "chair":
                furniture.chair(scene, (x, y, 0), rng.uniform(-pi, pi), rng.uniform(0.42, 0.5))
            elif name == "lamp":
                furniture.lamp(scene, (x, y, 0), 0.0, rng.uniform(1.2, 1.8))
            elif name == "plant":
                furniture.plant(scene, (x, y, 0), rng.uniform(-pi, pi), rng.uniform(0.5, 1.5))
            else:
                furniture.clutter(scene, (x, y, 0), rng.uniform(-pi, pi), rng.uniform(0.15, 0.42))


def _table_group(scene: Scene, floor: _Floor) -> None:
    rng = scene.palette.rng
    w, d, h = rng.uniform(0.6, 1.6), rng.uniform(0.5, 0.95), rng.choice([0.45, 0.72]) * rng.uniform(0.95, 1.1)
    quarter = int(rng.integers(4))
    along, across = (w, d) if quarter % 2 == 0 else (d, w)
    for _ in range(10):
        x, y = _spot(scene, 1.5, 3.8, 0.7)
        if floor.take(x, y, along, across):
            break
    else:
        return
    yaw = quarter * pi / 2 + rng.normal(0, 0.05)
    furniture.table(scene, (x, y, 0), yaw, (w, d, h))
    _top(scene, x, y, yaw, w, d, h)
    if h < 0.6:
        return
    for side in (-1, 1):
        if rng.random() < 0.55:
            u, v = rng.uniform(-0.2, 0.2) * w, side * (d / 2 + rng.uniform(0.05, 0.3))
            cx, cy = x + u * cos(yaw) - v * sin(yaw), y + u * sin(yaw) + v * cos(yaw)
            if floor.take(cx, cy, 0.4, 0.4, wall=0.05):
                furniture.chair(scene, (cx, cy, 0), yaw + (pi if side > 0 else 0) + rng.normal(0, 0.2), 0.45)


def _lights(scene: Scene) -> None:
    rng, size = scene.palette.rng, scene.size
    warm = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.65, 1.0)])
    if rng.random() < 0.4:
        angle, rise = rng.uniform(-pi, pi), rng.uniform(0.5, 1.2)
        far = 40 * np.array([cos(angle) * cos(rise), sin(angle) * cos(rise), sin(rise)])
        scene.lights.append(Light(size / 2 + far, warm * rng.uniform(0.5, 0.9), False))
    else:
        place = size * np.array([*rng.uniform(0.2, 0.8, 2), 0.96])
        scene.lights.append(Light(place, warm * rng.uniform(2.2, 4.0), True))
    if rng.random() < 0.4:
        place = size * rng.uniform((0.1, 0.1, 0.6), (0.9, 0.9, 0.95))
        scene.lights.append(Light(place, warm[::-1] * rng.uniform(0.8, 1.8), True))
    scene.ambient = rng.uniform(0.15, 0.38) * (1 + rng.uniform(-0.1, 0.1, 3))
