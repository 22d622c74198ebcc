"""The bottleneck adapter (Houlsby et al., arXiv 1902.00751): h + W_up act(W_down h + b_down) + b_up, after blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.adapters.adapter import Adapter, check_targets, match_sites
from branchtune.adapters.default_sites import default_block_sites
from branchtune.errors import UserError
from branchtune.scalars import real

if TYPE_CHECKING:
    from torch import Tensor, nn

    from branchtune.backbone.spec import BackboneSpec, Site
    from branchtune.reach import Nodes


@dataclass(frozen=True)
class Bottleneck(Adapter):
    """A small two-layer network after the attention and after the MLP of every block.

    Args:
        reduction: the hidden width is channels / reduction, at least 1.
        activation: the non-linearity between the two layers.
        target_modules: as for LoRA, over blocks; default: the modules named `attn` and `mlp`, and residual blocks
            where a level has neither.
    """

    reduction: float = 4.0
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    target_modules: str | list[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reduction", real("bottleneck reduction", self.reduction))
        check_targets(self.target_modules)
        if not self.reduction >= 1:
            raise UserError(f"bottleneck reduction must be at least 1, got {self.reduction}")
        if self.activation not in ("gelu", "relu", "silu"):
            raise UserError(f"unknown activation {self.activation!r}: use gelu, relu or silu")

    def width(self, site: Site) -> int:
        """Hidden channels at `site`."""
        return max(1, int(site.out_channels / self.reduction))

    def select_sites(self, spec: BackboneSpec) -> tuple[Site, ...]:
        if self.target_modules is None:
            return default_block_sites(spec)
        return match_sites([site for site in spec.sites if site.kind == "block"], self.target_modules, spec)

    def num_parameters(self, site: Site) -> int:
        return 2 * site.out_channels * self.width(site) + self.width(site) + site.out_channels

    def macs(self, site: Site) -> int:
        return site.positions * 2 * site.out_channels * self.width(site)

    def build(self, site: Site) -> nn.Module:
        from branchtune.adapters.bottleneck_layer import BottleneckLayer

        return BottleneckLayer(site.out_channels, self.width(site))

    def apply(self, site: Site, nodes: Nodes, inputs: Tensor, output: Tensor) -> Tensor:
        return nodes[0].adapt(site, nodes, output, self.activation)

    def merge_problem(self, site: Site) -> str | None:
        return "acts between layers, which no layer's weight can do"
