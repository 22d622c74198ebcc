"""Default sites: attention and MLP projections; in convolutional blocks the 1x1 convolutions."""

from __future__ import annotations

from branchtune.backbone.spec import BackboneSpec, Site
from branchtune.errors import UserError

PROJECTIONS = frozenset(
    [
        "qkv",
        "q",
        "k",
        "v",
        "kv",
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
        "query",
        "key",
        "value",
        "proj",
        "fc1",
        "fc2",
        "fc1_g",
        "fc1_x",
        "w1",
        "w2",
        "w3",
        "w12",
        "dense",
    ]
)
SHORTCUTS = frozenset({"downsample", "shortcut", "skip"})


def default_layer_sites(spec: BackboneSpec) -> tuple[Site, ...]:
    """The Linear and 1x1 Conv2d sites that carry LoRA unless `target_modules` says otherwise.

    Where a level has none of them (3x3-convolution blocks such as ResNet-18's), all its dense convolutions are taken.

    Raises:
        UserError: no wanted site remains in the whole backbone.
    """
    layers = [site for site in spec.sites if site.kind != "block"]
    chosen = {site.name for site in layers if _is_projection(site)}
    for level in spec.levels:
        here = [site for site in layers if site.level == level.index]
        if not chosen.intersection(site.name for site in here):
            chosen.update(site.name for site in here if site.kind == "conv2d" and site.groups == 1)
    if not chosen:
        reason = next(iter(spec.dead.items()), None)
        detail = f": {reason[0]!r} {reason[1]}" if reason else ""
        raise UserError(f"{spec.name} has no default site for an adapter{detail} (name others with target_modules)")
    return tuple(site for site in layers if site.name in chosen)


def default_block_sites(spec: BackboneSpec) -> tuple[Site, ...]:
    """The attention and MLP blocks; in levels without them, the residual blocks (children of a stage).

    Raises:
        UserError: the backbone has no block.
    """
    blocks = [site for site in spec.sites if site.kind == "block"]
    chosen = {site.name for site in blocks if site.name.rpartition(".")[2] in ("attn", "mlp")}
    for level in spec.levels:
        here = [site for site in blocks if site.level == level.index]
        if not chosen.intersection(site.name for site in here):
            numbered = [site for site in here if site.name.rpartition(".")[2].isdigit()]
            chosen.update(site.name for site in numbered if not _inside_another(site, numbered))
    if not chosen:
        raise UserError(f"{spec.name} has no block for an adapter (name some with target_modules)")
    return tuple(site for site in blocks if site.name in chosen)


def _is_projection(site: Site) -> bool:
    parts = site.name.split(".")
    if site.kind == "linear":
        return parts[-1] in PROJECTIONS
    return site.kernel_size == (1, 1) and site.groups == 1 and not SHORTCUTS.intersection(parts)


def _inside_another(site: Site, others: list[Site]) -> bool:
    return any(site.name.startswith(f"{other.name}.") for other in others)
