"""The methods that a comparison can hold, and the learning rate that is tuned for each."""

from __future__ import annotations

from typing import Any

from branchtune.settings import Settings

SINGLE = "single"
TITLES = {
    SINGLE: "single-task full fine-tuning",
    "full": "multi-task full fine-tuning",
    "decoders": "decoders only",
    "shared": "one shared adapter set",
    "separate": "one adapter set per task",
    "comb": "comb (MTLoRA)",
    "branched": "branched, planned tree",
    "random": "branched, random tree",
    "anti": "branched, anti-affinity tree",
}
# Controls differ from what they control for in nothing but the tree.
CONTROLS = {"random": "branched", "anti": "branched"}
# The learning rate of what a method trains inside the backbone, or of the decoders where it trains nothing there.
_RATES = {SINGLE: "backbone_lr", "full": "backbone_lr", "decoders": "decoder_lr"}


def with_rate(settings: Settings, method: str, factor: float) -> Settings:
    """The settings with the method's own learning rate multiplied by `factor`."""
    optimizer = settings.config.optimizer
    name = _RATES.get(method, "lr")
    if getattr(optimizer, name) is None:  # decoder_lr: null means lr
        name = "lr"
    changes: dict[str, Any] = {f"optimizer.init_args.{name}": float(f"{getattr(optimizer, name) * factor:.6g}")}
    return settings.but(**changes)
