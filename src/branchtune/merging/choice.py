"""Which levels to merge: what running group by group costs, against what live adapters cost."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from branchtune.errors import UserError, unknown
from branchtune.scalars import whole

#: multiply-accumulates, bytes of weights and operations per second of a device, and whether it computes while the next
#: are issued; orders of magnitude, for a choice between two ways of computing the same
_RATES = {"cpu": (6e10, 8e9, 4e4, False), "other": (2e13, 1e12, 1e5, True)}
#: operations that a live adapter adds at a site: stacking, reshaping, two products, an addition, their hook
_OPERATIONS_PER_SITE = 8
#: the least share of a level's time that copies of its weights must save
_LEAST_GAIN = 0.01


@dataclass(frozen=True)
class LevelFacts:
    """What the choice of one level depends on.

    Attributes:
        groups: of the whole tree.
        sites: number of sites.
        operations: of the frozen level, for one group.
        frozen_macs, adapter_macs: multiply-accumulates per image and group.
        once_macs: those per call that do not see the batch; groups that run one by one repeat them.
        parameters: of the weights that carry an adapter, for one copy.
        size: bytes of one such parameter.
        problem: why the level cannot be merged; None where it can.
    """

    level: int
    groups: int
    sites: int
    operations: int
    frozen_macs: int
    adapter_macs: int
    once_macs: int
    parameters: int
    size: int
    problem: str | None = None


@dataclass(frozen=True)
class LevelChoice:
    """What `merge` does with one level, and why.

    Attributes:
        level: its number.
        groups: how many groups of tasks it has.
        merged: whether its adapters are folded into copies of the weights.
        parameters_copied: what the groups' weights hold beyond one copy; 0 where the adapters stay live.
        bytes_copied: the same in bytes.
        macs_saved: multiply-accumulates for one image, for all groups.
        macs_repeated: those that do not see the batch and run once more for every group beyond the first.
        reason: a clause.
    """

    level: int
    groups: int
    merged: bool
    parameters_copied: int
    bytes_copied: int
    macs_saved: int
    macs_repeated: int
    reason: str

    def __str__(self) -> str:
        groups = f"{self.groups} group{'s' if self.groups > 1 else ''}"
        if not self.merged:
            return f"level {self.level} ({groups}): live, {self.reason}"
        return (
            f"level {self.level} ({groups}): merged, copies {self.parameters_copied:,} parameters "
            f"({self.bytes_copied / 1e6:.1f} MB), saves {self.macs_saved:,} MACs per image: {self.reason}"
        )


def wanted_levels(levels: Any, depth: int) -> set[int] | None:
    """The levels that the user names; None where the choice is left to `choose`.

    Raises:
        UserError: levels of another kind, or one that does not exist.
    """
    if isinstance(levels, str):
        if levels not in ("auto", "all", "none"):
            raise unknown("levels", levels, ["auto", "all", "none"])
        return None if levels == "auto" else set(range(depth if levels == "all" else 0))
    if not isinstance(levels, Sequence | Set):
        raise UserError(f"levels={levels!r}: use 'auto', 'all', 'none' or a list of level numbers")
    wanted = {whole("a level", level) for level in levels}
    for level in sorted(wanted):
        if not 0 <= level < depth:
            raise UserError(f"levels names level {level}, the model has levels 0 to {depth - 1}")
    return wanted


def choose(
    facts: Sequence[LevelFacts],
    wanted: set[int] | None,
    memory_limit: int | None,
    batch_size: int,
    device: str,
    backbone_bytes: int,
) -> tuple[LevelChoice, ...]:
    """One choice per level.

    Args:
        wanted: by `wanted_levels`.
        memory_limit, batch_size: as in `merge`.
        device: type of the device that the model is on.
        backbone_bytes: of all parameters of one backbone: the limit where none is given and the choice is ours.

    Raises:
        UserError: a wanted level cannot be merged, or copies beyond the limit.
    """
    if wanted is None:
        limit = backbone_bytes if memory_limit is None else memory_limit
        return _automatic(facts, limit, batch_size, device)
    for fact in facts:
        if fact.level in wanted and fact.problem is not None:
            raise UserError(
                f"level {fact.level} cannot be merged: {fact.problem}; use levels='auto', which keeps such adapters "
                "live, or leave the level out"
            )
    choices = tuple(_choice(fact, fact.level in wanted, "asked for", "not asked for") for fact in facts)
    needed = sum(choice.bytes_copied for choice in choices)
    if memory_limit is not None and needed > memory_limit:
        raise UserError(
            f"copies of the weights take {needed:,} bytes, memory_limit is {memory_limit:,}: raise it, name fewer "
            "levels, or use levels='auto'"
        )
    return choices


def _automatic(facts: Sequence[LevelFacts], limit: int, batch: int, device: str) -> tuple[LevelChoice, ...]:
    by_level = {fact.level: fact for fact in facts}
    found, gains = {}, {}
    for fact in facts:
        live, merged = _seconds(fact, batch, device)
        gain = 1 - merged / live
        share = f"about {abs(gain):.0%} of the level's time"
        if fact.problem is not None or not fact.sites:
            found[fact.level] = _choice(fact, False, "", fact.problem or "")
        elif fact.groups == 1:
            found[fact.level] = _choice(fact, True, "one group needs one copy", "")
        elif gain < _LEAST_GAIN:
            lost = "would save less than it is worth" if gain >= 0 else f"would cost {share}"
            found[fact.level] = _choice(fact, False, "", f"running group by group {lost}")
        else:
            found[fact.level] = _choice(fact, True, f"saves {share}", "")
            gains[fact.level] = (live - merged) / max(1, found[fact.level].bytes_copied)
    left = limit
    for level in sorted(gains, key=lambda level: -gains[level]):  # the most seconds per byte first
        needed = found[level].bytes_copied
        if needed <= left:
            left -= needed
        else:
            found[level] = _choice(by_level[level], False, "", _beyond(needed, left, limit))
    return tuple(found[fact.level] for fact in facts)


def _beyond(needed: int, left: int, limit: int) -> str:
    needs, has, may = (f"{count / 1e6:.1f} MB" for count in (needed, left, limit))
    return f"copies of {needs} are beyond the {has} left of {may} that all copies may take"


def _choice(fact: LevelFacts, merged: bool, why_merged: str, why_live: str) -> LevelChoice:
    if not fact.sites:
        return LevelChoice(fact.level, fact.groups, False, 0, 0, 0, 0, "it has no adapters")
    if not merged:
        return LevelChoice(fact.level, fact.groups, False, 0, 0, 0, 0, why_live)
    copied = (fact.groups - 1) * fact.parameters
    saved = fact.groups * fact.adapter_macs - (fact.groups - 1) * fact.once_macs
    return LevelChoice(fact.level, fact.groups, True, copied, copied * fact.size, saved, fact.once_macs, why_merged)


def _seconds(fact: LevelFacts, batch: int, device: str) -> tuple[float, float]:
    """With live adapters on the folded batch, and merged, group by group.

    One folded pass issues every operation once, and more for the adapters, and reads the weights once; one pass per
    group does both once per group. A device that computes while operations are issued takes the longer of both.
    """
    macs_rate, bytes_rate, operations_rate, overlaps = _RATES.get(device, _RATES["other"])

    def seconds(passes: int, operations: int, macs: int) -> float:
        issued = passes * operations / operations_rate
        read = passes * fact.parameters * fact.size / bytes_rate
        computed = (passes * fact.once_macs + batch * fact.groups * macs) / macs_rate + read
        return max(issued, computed) if overlaps else issued + computed

    live = seconds(1, fact.operations + _OPERATIONS_PER_SITE * fact.sites, fact.frozen_macs + fact.adapter_macs)
    return max(live, 1e-12), seconds(fact.groups, fact.operations, fact.frozen_macs)
