"""LoRA (arXiv 2106.09685): y = W0 x + b + (alpha / r) B A dropout(x), on Linear and Conv2d layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING, Self

from branchtune.adapters.adapter import Adapter, check_targets, match_sites
from branchtune.adapters.default_sites import default_layer_sites
from branchtune.errors import UserError
from branchtune.scalars import real, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from branchtune.backbone.spec import BackboneSpec, Site
    from branchtune.reach import Nodes


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank adapters; spellings are PEFT's.

    A Linear site trains A `[r, in]` and B `[out, r]`; a convolution A `[r, in / groups, kh, kw]` per channel group and
    a 1x1 B; a depthwise convolution a zero-initialised change of its kernel, counted as such. B = 0 at the start.

    Args:
        r: rank of the update.
        lora_alpha: the update is scaled by lora_alpha / r.
        lora_dropout: dropout probability on the adapter's input.
        target_modules: a regex over whole module names, or a list of names or endings; default: attention and MLP
            projections and, in convolutional blocks, 1x1 convolutions.
        rank_pattern: rank by level index where it differs from `r`, e.g. `{2: 16, 3: 32}`.
        alpha_pattern: likewise lora_alpha.
    """

    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    target_modules: str | list[str] | None = None
    rank_pattern: dict[int, int] = field(default_factory=dict)
    alpha_pattern: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank_pattern", _by_level("rank_pattern", "rank", self.rank_pattern, whole))
        object.__setattr__(self, "alpha_pattern", _by_level("alpha_pattern", "number", self.alpha_pattern, real))
        object.__setattr__(self, "r", whole("LoRA r", self.r))
        for key in ("lora_alpha", "lora_dropout"):
            object.__setattr__(self, key, real(key, getattr(self, key)))
        check_targets(self.target_modules)
        for rank in (self.r, *self.rank_pattern.values()):
            if rank < 1:
                raise UserError(f"LoRA rank must be at least 1, got {rank}")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        for key, alphas in (("lora_alpha", [self.lora_alpha]), ("alpha_pattern", self.alpha_pattern.values())):
            for alpha in alphas:
                if not math.isfinite(alpha) or alpha == 0:
                    raise UserError(f"{key} must be finite and not 0, got {alpha}")

    def rank(self, site: Site) -> int:
        """Rank of the update at `site`."""
        return self.rank_pattern.get(site.level, self.r)

    def scale(self, site: Site) -> float:
        """Factor of the update at `site`, lora_alpha / r."""
        return self.alpha_pattern.get(site.level, self.lora_alpha) / self.rank(site)

    def with_ranks(self, ranks: Sequence[int]) -> Self:
        """This adapter with another rank at every level, and lora_alpha as it is.

        The entries of A and B move about equally far in a step of Adam whatever the rank, and the update, a sum of r
        products, about r lora_alpha / r times as far: with lora_alpha kept, one learning rate suits all ranks, also
        where the trunk of a tree has a higher one than its branches.
        """
        return replace(self, rank_pattern=dict(enumerate(ranks)))

    def select_sites(self, spec: BackboneSpec) -> tuple[Site, ...]:
        levels = range(len(spec.levels))
        for key in ("rank_pattern", "alpha_pattern"):
            beyond = [level for level in getattr(self, key) if level not in levels]
            if beyond:
                raise UserError(f"{key} names level {beyond[0]}, but {spec.name} has levels 0 to {levels[-1]}")
        if self.target_modules is None:
            return default_layer_sites(spec)
        return match_sites([s for s in spec.sites if s.kind != "block"], self.target_modules, spec)

    def num_parameters(self, site: Site) -> int:
        kernel = site.kernel_size[0] * site.kernel_size[1]
        if is_depthwise(site):
            return site.out_channels * kernel
        return self.rank(site) * (site.in_channels * kernel + site.out_channels)

    def macs(self, site: Site) -> int:
        return site.positions * self.num_parameters(site)

    def build(self, site: Site) -> nn.Module:
        from branchtune.adapters import lora_layers

        if site.kind == "linear" or _is_plain_pointwise(site):
            return lora_layers.LoRALinear(site, self.rank(site))
        return lora_layers.KernelDelta(site) if is_depthwise(site) else lora_layers.LoRAConv(site, self.rank(site))

    def apply(self, site: Site, nodes: Nodes, inputs: Tensor, output: Tensor) -> Tensor:
        from torch.nn.functional import dropout

        drops = self.lora_dropout and nodes[0].training
        if drops:
            inputs = dropout(inputs, self.lora_dropout)
        if drops or not self._is_all_that_adapts(nodes[0]):
            nodes.frozen = None
        return nodes[0].adapt(site, nodes, inputs, output, self.scale(site))

    def _is_all_that_adapts(self, node: nn.Module) -> bool:
        """Whether the input and output of a layer reach the node as they are: not where a class has its own code."""
        from branchtune.adapters.lora_layers import LoRALinear

        return type(self).apply is LoRA.apply and type(node) is LoRALinear

    def merge_problem(self, site: Site) -> str | None:
        own = type(self)
        if own.apply is not LoRA.apply and own.delta_weight is LoRA.delta_weight:
            return super().merge_problem(site)
        return None

    def delta_weight(self, site: Site, node: nn.Module) -> Tensor:
        change: Tensor = node.delta(site, self.scale(site))  # type: ignore[operator]
        return change


def _by_level(key: str, what: str, pattern: Any, number: Callable[[str, Any], Any]) -> dict[int, Any]:
    """A pattern by level number, with its values checked.

    Raises:
        UserError: it is no such mapping, or a value is no number.
    """
    try:
        return {int(level): number(f"{key}: a {what}", value) for level, value in pattern.items()}
    except UserError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{key} maps level numbers to {what}s, such as {{2: 16}}, got {pattern}") from error


def is_depthwise(site: Site) -> bool:
    return site.kind == "conv2d" and site.groups > 1 and site.groups == site.in_channels


def _is_plain_pointwise(site: Site) -> bool:
    return site.kernel_size == (1, 1) and site.groups == 1 and site.padding == (0, 0)
