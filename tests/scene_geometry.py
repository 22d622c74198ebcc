"""Rendered scenes, planes seen through a camera, and what their geometry says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from branchtune.data.scenes import render_scene

KINDS: Any = {"semseg": "classes", "parts": "classes", "saliency": "values", "normals": "normals", "depth": "depth"}


def scene(height: int = 48, width: int = 48, index: int = 3) -> dict[str, Any]:
    return {key: torch.from_numpy(np.array(value)) for key, value in render_scene(0, index, height, width).items()}


def points(depth: Tensor) -> Tensor:
    """Camera points of a depth map, with a focal length of one image side."""
    height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([(x / width - 0.5) * depth, (y / height - 0.5) * depth, depth])


def surface_normals(depth: Tensor) -> Tensor:
    p = points(depth)
    down, right = torch.gradient(p, dim=(1, 2))
    normal = torch.nn.functional.normalize(torch.linalg.cross(right, down, dim=0), dim=0)
    return normal * -torch.sign((normal * p).sum(0, keepdim=True))


def plane(x: float, y: float, z: float, size: int = 40) -> dict[str, Tensor]:
    """A plane n . p = -3 seen through the camera: its exact depth and its normal."""
    n = torch.tensor([x, y, z]) / math.hypot(x, y, z)
    rays = points(torch.ones(size, size))
    depth = -3 / (n[:, None, None] * rays).sum(0)
    assert (depth > 0).all()
    return {
        "image": torch.zeros(3, size, size),
        "depth": depth,
        "normals": n[:, None, None].expand(3, size, size).clone(),
    }
