"""MTLoRA's comb (arXiv 2403.20320): beside what tasks share, a LoRA per task whose stream feeds only its decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.errors import UserError
from branchtune.scalars import real, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from branchtune.backbone.spec import BackboneSpec, Site
    from branchtune.streams import TaskStreams

TASK_LAYERS = ("attn.proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Comb(LoRA):
    """LoRA on every node, and in the last block of every level one per task on attn.proj, mlp.fc1 and mlp.fc2.

    With x the activation of the task's group and x_t the task's, a layer of the last block gives y = W0 x + b + s B A x
    to the group's stream, which goes on unchanged, and y_t = W0 x + b + s_t B_t A_t x_t to the task's stream, which
    ends in its decoder. The frozen product and the attention are computed once per group. On a tree that never forks
    this is MTLoRA; where it forks, every branch is a comb. Needs transformer blocks.

    Args:
        r_task: rank of the tasks' adapters.
        task_alpha: their update is scaled by task_alpha / r_task.
    """

    r_task: int = 4
    task_alpha: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "r_task", whole("Comb r_task", self.r_task))
        object.__setattr__(self, "task_alpha", real("task_alpha", self.task_alpha))
        if self.r_task < 1:
            raise UserError(f"Comb r_task must be at least 1, got {self.r_task}")
        if not math.isfinite(self.task_alpha) or self.task_alpha == 0:
            raise UserError(f"task_alpha must be finite and not 0, got {self.task_alpha}")

    @classmethod
    def like(cls, adapter: Adapter) -> Comb:
        """The comb whose shared part is `adapter`, with the same raw scale for the tasks' part.

        Raises:
            UserError: an adapter that is no LoRA.
        """
        if isinstance(adapter, cls):
            return adapter
        if not isinstance(adapter, LoRA):
            raise UserError(f"streams of the tasks are made of LoRA, the adapter is {type(adapter).__name__}")
        shared: dict[str, Any] = {field.name: getattr(adapter, field.name) for field in fields(LoRA)}
        return cls(**shared, task_alpha=adapter.lora_alpha / adapter.r * cls.r_task)

    def last_block(self, spec: BackboneSpec, level: int) -> str:
        """Name of the level's last block that has all layers which carry the tasks' adapters.

        Raises:
            UserError: the level has no such block.
        """
        linear = {site.name for site in spec.sites if site.level == level and site.kind == "linear"}
        names = [name.removesuffix(".attn.proj") for name in linear if name.endswith(".attn.proj")]
        blocks = [name for name in names if all(f"{name}.{layer}" in linear for layer in TASK_LAYERS)]
        order = [site.name for site in spec.sites]
        if not blocks:
            raise UserError(
                f"Comb needs transformer blocks with {', '.join(TASK_LAYERS)}: level {level} of {spec.name} has none"
            )
        return max(blocks, key=lambda name: order.index(f"{name}.attn.proj"))

    def task_sites(self, spec: BackboneSpec, level: int) -> tuple[Site, ...]:
        """The sites of the tasks' adapters at `level`."""
        block, by_name = self.last_block(spec, level), {site.name: site for site in spec.sites}
        return tuple(by_name[f"{block}.{layer}"] for layer in TASK_LAYERS)

    def merging_sites(self, spec: BackboneSpec, level: int) -> tuple[Site, ...]:
        """The frozen layers between the last block and the end of the level, which every task's stream passes, too."""
        if self.ends_level(spec, level):
            return ()
        prefix = f"{spec.levels[level].end}."
        return tuple(site for site in spec.sites if site.kind != "block" and site.name.startswith(prefix))

    def adapted_merging_sites(self, spec: BackboneSpec, level: int) -> tuple[Site, ...]:
        """Those of `merging_sites` that `target_modules` adapts: streams pass them with their group's adapter."""
        chosen = {site.name for site in self.select_sites(spec)}
        return tuple(site for site in self.merging_sites(spec, level) if site.name in chosen)

    def ends_level(self, spec: BackboneSpec, level: int) -> bool:
        """Whether the level ends with its last block, without a merging after it.

        Raises:
            UserError: it ends with something else, which the streams would miss.
        """
        end, block = spec.levels[level].end, self.last_block(spec, level)
        if f"{block}.".startswith(f"{end}."):
            return True
        if not end.endswith(".downsample"):
            raise UserError(f"Comb: level {level} ends at {end!r}, after its last block {block!r}: end it at the block")
        return False

    def merge_problem(self, site: Site) -> str | None:
        return "has streams of the tasks, which read what the layers return without the shared adapters"

    def streams(self, frozen: nn.Module, spec: BackboneSpec, tasks: Sequence[str]) -> TaskStreams:
        from branchtune.streams import TaskStreams

        return TaskStreams(frozen, spec, self, tasks)

    def stream_parameters(self, spec: BackboneSpec, level: int) -> int:
        """Trainable parameters of one task at `level`."""
        return sum(self.r_task * (s.in_channels + s.out_channels) for s in self.task_sites(spec, level))

    def stream_macs(self, spec: BackboneSpec, level: int) -> int:
        """Multiply-accumulates per image that one task's stream adds at `level`."""
        adapters = sum(
            s.positions * self.r_task * (s.in_channels + s.out_channels) for s in self.task_sites(spec, level)
        )
        merging = sum(s.positions * s.in_channels * s.out_channels for s in self.merging_sites(spec, level))
        return adapters + merging + sum(self.macs(s) for s in self.adapted_merging_sites(spec, level))
