"""Values of class targets that mark what losses and metrics skip; float targets have NaN there."""

from __future__ import annotations

#: of a pixel, in class maps
IGNORED_CLASS = 255
#: of a whole image, for image-level classes
IGNORED_LABEL = -100
