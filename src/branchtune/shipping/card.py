"""The README.md of a saved model."""

from __future__ import annotations

from branchtune.model import MultiTaskModel
from branchtune.shipping.config import ModelConfig

_TEMPLATE = """---
library_name: branchtune
tags: [multi-task-learning, {kind}]
---

# {tasks} on {backbone}

One frozen backbone, one branched model: all tasks in one forward pass.

```
{tree}
```

| parameters | count |
|---|---|
{counts}

```python
import branchtune as bt

{loading}
outputs = model(images)  # {{"{first}": ..., }}
```

{notes}
"""


def model_card(model: MultiTaskModel, config: ModelConfig, name: str) -> str:
    """Tree, counts by owner, and how to load the model, in Markdown.

    Args:
        name: of the folder.
    """
    return _TEMPLATE.format(
        kind=_kind(model),
        tasks=", ".join(model.tasks),
        backbone=model.spec.name,
        tree=model.tree,
        counts="\n".join(f"| {owner} | {count:,} |" for owner, count in config.parameters.items()),
        loading=f'model = bt.MultiTaskModel.from_pretrained("{name}"{_backbone_argument(config)})',
        first=next(iter(model.tasks)),
        notes="\n\n".join(_notes(model, config)),
    )


def _kind(model: MultiTaskModel) -> str:
    """What was trained, as a tag."""
    if model.backbone.train_backbone:
        return "full-fine-tuning"
    if model.adapter is not None:
        return type(model.adapter).__name__.lower()
    return "partial-fine-tuning" if model.extras else "decoders-only"


def _backbone_argument(config: ModelConfig) -> str:
    source = config.source
    if source is None or not (source.has_weights or config.train_backbone):
        return ", backbone=backbone"
    if source.checkpoint_file and not config.train_backbone:
        return f', backbone_checkpoint="{source.checkpoint_file}"'
    return ""


def _notes(model: MultiTaskModel, config: ModelConfig) -> list[str]:
    height, width = model.spec.image_size
    notes = [f"Trained on images of {height}x{width} pixels (height x width)."]
    cfg = getattr(model.backbone.frozen, "pretrained_cfg", None) or {}
    if "mean" in cfg and "std" in cfg:
        notes[0] += f" They enter normalised: mean {tuple(cfg['mean'])}, standard deviation {tuple(cfg['std'])}."
    if config.source is not None:
        notes.append(f"Backbone: {config.source}.")
    if "backbone=" in _backbone_argument(config):
        notes.append(
            "The backbone cannot be created again from its name: pass the module that the model was trained on, "
            "with the same weights, as `backbone=`."
        )
    if "checkpoint" in _backbone_argument(config) and config.source:
        notes.append(f"SHA-256 of {config.source.checkpoint_file}: `{config.source.checkpoint_sha256}`.")
    return notes
