"""The README.md of a saved model."""

from __future__ import annotations

import math
from collections.abc import Mapping

from branchtune.backbone.check import image_channels
from branchtune.backbone.source import ELSEWHERE, PACKAGED, BackboneSource
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.shipping.config import ModelConfig

_TEMPLATE = """---
{metadata}
---

# {tasks} on {backbone}

One frozen backbone, one branched model: all tasks in one forward pass.

```
{tree}
```

| parameters | count |
|---|---|
{counts}

{metrics}```python
import torch
import branchtune as bt

{loading}
images = torch.zeros(1, {channels}, {height}, {width})  # normalised as said below
outputs = model(images)  # {{"{first}": {shape}, ...}}
```

{notes}
"""


def model_card(
    model: MultiTaskModel, config: ModelConfig, name: str, metrics: Mapping[str, Mapping[str, float]] | None = None
) -> str:
    """Tree, counts by owner, metrics and how to load the model, in Markdown, under the Hub's metadata in YAML.

    Args:
        name: of the folder, or of the repository.
        metrics: by task, where they are known.
    """
    height, width = model.spec.image_size
    first = next(iter(model.tasks.values()))
    return _TEMPLATE.format(
        metadata=_metadata(model, config),
        tasks=", ".join(model.tasks),
        backbone=model.spec.name,
        tree=model.tree,
        counts="\n".join(f"| {owner} | {count:,} |" for owner, count in config.parameters.items()),
        loading=f'model = bt.MultiTaskModel.from_pretrained("{name}"{_backbone_argument(config)})',
        metrics=_metrics(model, metrics or {}),
        channels=image_channels(model.backbone.frozen),
        height=height,
        width=width,
        first=first.name,
        shape=[1, first.out_channels, *([height, width] if first.dense else [])],
        notes="\n\n".join(_notes(model, config)),
    )


def _metadata(model: MultiTaskModel, config: ModelConfig) -> str:
    from huggingface_hub import ModelCardData

    tags, base = ["multi-task-learning", _kind(model)], base_model(model, config)
    return ModelCardData(library_name="branchtune", tags=tags, base_model=base).to_yaml().strip()


def base_model(model: MultiTaskModel, config: ModelConfig) -> str | None:
    """The Hub's repository that the backbone's weights came from, or None where that is not known for sure.

    A backbone made by timm alone does not tell whether published weights were loaded; one of `create_backbone` does.
    """
    source = getattr(model.backbone.frozen, "branchtune_source", None)
    if not isinstance(source, BackboneSource) or not source.pretrained or source.name == PACKAGED:
        return None
    if source.name.startswith(ELSEWHERE):
        return source.name.partition(":")[2].partition("@")[0] if source.name.startswith("hf") else None
    cfg = getattr(model.backbone.frozen, "pretrained_cfg", None) or {}
    return cfg.get("hf_hub_id") or None


def _metrics(model: MultiTaskModel, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """A table of every task's metrics, the headline first; empty where none is known."""
    try:
        numbers = {task: {name: float(value) for name, value in values.items()} for task, values in metrics.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"metrics={metrics!r}: pass numbers by task and name, such as evaluate returns") from error
    rows = []
    for task, values in numbers.items():
        headline = model.tasks[task].headline if task in model.tasks else None
        names = sorted((name for name in values if name != "loss"), key=lambda name: name != headline)
        rows += [f"| {task} | {name} | {values[name]:.4g} |" for name in names if math.isfinite(values[name])]
    return "\n".join(["| task | metric | value |", "|---|---|---|", *rows, "", ""]) if rows else ""


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
    if "mean" in cfg and "std" in cfg and len(cfg["mean"]) == image_channels(model.backbone.frozen):
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
