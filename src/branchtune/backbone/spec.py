"""What branchtune knows about a backbone: levels, feature shapes, sites, and the work each level costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SiteKind = Literal["linear", "conv2d", "block"]
FeatureLayout = Literal["NCHW", "NHWC", "NLC", "intermediates"]


@dataclass(frozen=True)
class Site:
    """A layer (Linear, Conv2d) or a block that an adapter can attach to.

    Attributes:
        name: the module's path in the backbone, e.g. `layers.0.blocks.1.attn.qkv`.
        level: index of the level that runs it.
        kind: "linear", "conv2d" or "block".
        in_channels: channels of its input (of its output, for a block).
        out_channels: channels of its output.
        positions: output positions per image, summed over its calls: tokens, or height x width.
        channel_axis: axis of the channels in the output, 1 or -1.
        kernel_size: of a convolution.
        stride: of a convolution.
        padding: of a convolution.
        dilation: of a convolution.
        groups: of a convolution.
    """

    name: str
    level: int
    kind: SiteKind
    in_channels: int
    out_channels: int
    positions: int
    channel_axis: int = -1
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def key(self) -> str:
        """The site's name as one component of a parameter name (which splits at dots)."""
        return self.name.replace(".", "/")


@dataclass(frozen=True)
class Feature:
    """The feature map at the end of a level: `[B, channels, height, width]` for the traced image size.

    Attributes:
        channels: C.
        height: H, in cells of the map.
        width: W.
        layout: of the backbone's own output there; "intermediates" comes from timm's `forward_intermediates`.
        prefix_tokens: class and register tokens before those of the image, in "NLC".
    """

    channels: int
    height: int
    width: int
    layout: FeatureLayout
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Level:
    """A consecutive slice of the backbone, from the call of module `start` to the return of module `end`.

    Attributes:
        index: its number, 0 next to the stem.
        start: name of its first module.
        end: name of its last module.
        feature: the map at its end.
        macs: multiply-accumulates of the frozen operations that see the batch, per image.
    """

    index: int
    start: str
    end: str
    feature: Feature
    macs: int

    def __str__(self) -> str:
        span = self.start if self.start == self.end else f"{self.start} .. {self.end}"
        shape = f"{self.feature.channels} x {self.feature.height} x {self.feature.width}"
        return f"level {self.index}: {span} -> {shape}"


@dataclass(frozen=True)
class SideInput:
    """A module called with tensors that carry the batch beside its first argument.

    Attributes:
        module: its name.
        level: the level that runs it.
        rows: rows per image of each such argument, by position (int) or keyword (str).
    """

    module: str
    level: int
    rows: dict[int | str, int]


@dataclass(frozen=True)
class BackboneSpec:
    """The result of tracing a backbone once (`trace_backbone`).

    Attributes:
        name: timm's name where there is one, else the class name.
        image_size: height and width in pixels of the traced image.
        levels: in order; the stem is everything before the first.
        sites: every place that can carry an adapter, in order of execution.
        dead: layers that cannot carry an adapter, by name, with the reason.
        side_inputs: modules called with further tensors that carry the batch.
        parameters: names of the parameters that the features depend on (not a classifier's, for example).
        stem_macs: multiply-accumulates that no branch repeats: those before the first level, and inside the levels
            those that do not see the batch (networks over relative positions), for one image.
        feature_indices: set when features must come from timm's `forward_intermediates`, because raw outputs of blocks
            are not image grids (hiera): the indices to ask for.
    """

    name: str
    image_size: tuple[int, int]
    levels: tuple[Level, ...]
    sites: tuple[Site, ...]
    dead: dict[str, str]
    side_inputs: tuple[SideInput, ...]
    parameters: tuple[str, ...]
    stem_macs: int
    feature_indices: tuple[int, ...] | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one plain pass (stem and levels), per image."""
        return self.stem_macs + sum(level.macs for level in self.levels)

    def describe_levels(self) -> str:
        """The levels in one line: modules and the shape of the feature map."""
        return "; ".join(map(str, self.levels))
