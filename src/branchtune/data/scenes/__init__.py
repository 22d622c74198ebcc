from ._render import render_scene
from .classes import CLASSES, PARTS, STRUCTURE, TEXTURES
