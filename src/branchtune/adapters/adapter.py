"""The interface of an adapter family: what one group trains at one site, and what G of them do to a folded batch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from branchtune.backbone.spec import BackboneSpec, Site
    from branchtune.reach import Nodes
    from branchtune.streams import TaskStreams


class Adapter(ABC):
    """Configuration of an adapter family; it knows nothing of trees, tasks or training.

    A family selects its sites, predicts their cost, builds the parameters of one node at one site as a module, and
    applies the modules of all groups to a folded batch. The modules own the parameters, one set per node and site, so
    that an idle node has no gradient.
    """

    @abstractmethod
    def select_sites(self, spec: BackboneSpec) -> tuple[Site, ...]:
        """The sites of the backbone that this adapter attaches to, in order of execution; never empty."""

    @abstractmethod
    def num_parameters(self, site: Site) -> int:
        """Trainable parameters of one node at `site`."""

    @abstractmethod
    def macs(self, site: Site) -> int:
        """Multiply-accumulates per image that one node adds at `site`."""

    def with_ranks(self, ranks: Sequence[int]) -> Adapter:
        """This adapter with another rank at every level, and otherwise as it is.

        Raises:
            UserError: the family has no ranks.
        """
        raise UserError(f"{type(self).__name__} has no ranks: adapter_share needs an adapter such as LoRA")

    def stream_parameters(self, spec: BackboneSpec, level: int) -> int:
        """Trainable parameters of one task's own stream at `level`; none in most families."""
        return 0

    def stream_macs(self, spec: BackboneSpec, level: int) -> int:
        """Multiply-accumulates per image that one task's own stream adds at `level`."""
        return 0

    def streams(self, frozen: nn.Module, spec: BackboneSpec, tasks: Sequence[str]) -> TaskStreams | None:
        """For families whose tasks leave a common stream: what the decoders read instead of the groups' features."""
        return None

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """The parameters of one node at `site`, initialised so that the frozen backbone is unchanged."""

    @abstractmethod
    def apply(self, site: Site, nodes: Nodes, inputs: Tensor, output: Tensor) -> Tensor:
        """The adapted output of the site.

        Args:
            site: where.
            nodes: the modules made by `build`, one for each of the G groups; `nodes.stack(name)` gives a parameter
                of all of them as `[G, ...]`, with a gradient for those alone that a backward pass reaches.
            inputs: what the frozen layer saw, `[G * n, ...]`, group-major.
            output: what it returned, `[G * n, ...]`; it may be changed in place where no gradient is recorded.
        """

    def merge_problem(self, site: Site) -> str | None:
        """Why this adapter at `site` is no change of the layer's weight; None where `delta_weight` gives that change.

        A clause that goes on after the name of the family, such as "Bottleneck ...".
        """
        return "does not say how it changes a layer's weight (delta_weight)"

    def delta_weight(self, site: Site, node: nn.Module) -> Tensor:
        """What a module made by `build` adds to the weight of its site, in the weight's shape."""
        raise NotImplementedError(f"{type(self).__name__} {self.merge_problem(site)}")


def check_targets(target_modules: Any) -> None:
    """Refuse what is neither None, a regex nor a list of texts.

    Raises:
        UserError: shows what was given.
    """
    if target_modules is None or isinstance(target_modules, str):
        return
    if not isinstance(target_modules, Sequence) or not all(isinstance(entry, str) for entry in target_modules):
        raise UserError(f"target_modules={target_modules!r}: pass a regular expression, or a list of module names")


def match_sites(sites: Sequence[Site], target_modules: str | Sequence[str], spec: BackboneSpec) -> tuple[Site, ...]:
    """Sites chosen as PEFT's `target_modules` does: a regex over whole names, or a list of names or name endings.

    Raises:
        UserError: an entry matches nothing, or only layers that cannot carry an adapter.
    """
    by_name = {site.name: site for site in sites}
    entries = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    if not entries:
        raise UserError("target_modules is empty: name at least one module, or leave it out for the default sites")
    chosen: set[str] = set()
    for entry in entries:
        matches = _matcher(entry, regex=isinstance(target_modules, str))
        found = {name for name in by_name if matches(name)}
        if not found:
            dead = [name for name in spec.dead if matches(name)]
            if dead:
                raise UserError(f"target_modules {entry!r}: {dead[0]!r} cannot carry an adapter: {spec.dead[dead[0]]}")
            raise unknown("target module", entry, {name.rpartition(".")[2] for name in by_name} | set(by_name))
        chosen |= found
    return tuple(site for site in sites if site.name in chosen)


def _matcher(entry: str, regex: bool) -> Any:
    if not regex:
        return lambda name: name == entry or name.endswith(f".{entry}")
    try:
        pattern = re.compile(entry)
    except re.error as error:
        raise UserError(f"target_modules {entry!r} is not a regular expression: {error}") from error
    return lambda name: pattern.fullmatch(name) is not None
