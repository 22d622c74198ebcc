"""The methods that a comparison can hold, and the learning rate that is tuned for each."""

from __future__ import annotations

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
    """The settings with the method's own learning rate multiplied by `factor`.

    One that is null means `lr`, and keeps that value where another is tuned: else some methods would have the rate of
    their decoders tuned as well.
    """
    if factor == 1:
        return settings
    optimizer, own = settings.config.optimizer, _RATES.get(method, "lr")
    rates = {name: getattr(optimizer, name) for name in ("lr", "decoder_lr", "backbone_lr") if hasattr(optimizer, name)}
    changes = {name: rates["lr"] for name, rate in rates.items() if rate is None}
    changes[own] = float(f"{(rates[own] or rates['lr']) * factor:.6g}")
    return settings.but(**{f"optimizer.init_args.{name}": rate for name, rate in changes.items()})
