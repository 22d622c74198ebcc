"""The README.md of one task's PEFT folder."""

from __future__ import annotations

from typing import Any

from branchtune._version import __version__
from branchtune.backbone.check import image_channels
from branchtune.backbone.source import PACKAGED, BackboneSource, source_of
from branchtune.backbone.statistics import image_statistics
from branchtune.model import MultiTaskModel
from branchtune.shipping.classes import describe

CARD = "README.md"

_TEMPLATE = """---
library_name: peft
tags: [lora, {kind}]
---

# {task}: LoRA on {backbone}

One task of a branched multi-task model, written by branchtune {version}. Images enter with {height}x{width} pixels
(height x width), {normalised}.

```python
{library}from peft import PeftModel

{creation}
model = PeftModel.from_pretrained(backbone, "{task}").eval()
features = {features}
```

`decoder.safetensors` makes the task's output from the features at the end of each level ({levels}):

```python
import branchtune as bt
from safetensors.torch import load_file
{imports}
adapted = bt.MultiTaskModel(
    model.get_base_model(),
    [{task_code}],
    decoder={decoder_code},
    levels={bounds},
    image_size=({height}, {width}),
).eval()
adapted.decoders["{task}"].load_state_dict(load_file("{task}/decoder.safetensors"))
output = adapted(images)["{task}"]
```
"""


def peft_card(model: MultiTaskModel, task: str) -> str:
    """How to load the folder, in Markdown whose code runs in the folder above it."""
    frozen, spec = model.backbone.frozen, model.spec
    height, width = spec.image_size
    channels, (mean, std) = image_channels(frozen), image_statistics(frozen)
    normalised = f"normalised with mean {mean} and standard deviation {std}"
    if len(mean) != channels:
        normalised = f"of {channels} channels, normalised as they were in training"
    library, creation = _creation(source_of(frozen), hasattr(frozen, "branchtune_source"))
    described = describe(model.tasks[task]), describe(model.decoder)
    call = "model.get_base_model().forward_features(images)" if hasattr(frozen, "forward_features") else "model(images)"
    return _TEMPLATE.format(
        kind=type(model.tasks[task]).__name__,
        task=task,
        backbone=spec.name,
        version=__version__,
        height=height,
        width=width,
        normalised=normalised,
        library=library,
        creation=creation,
        features=call,
        levels=", ".join(level.end for level in spec.levels),
        imports="".join(sorted({_import(entry) for entry in described})),
        task_code=_call(described[0]),
        decoder_code=_call(described[1]),
        bounds=[f"{level.start}:{level.end}" for level in spec.levels],
    )


def _creation(source: BackboneSource | None, known: bool) -> tuple[str, str]:
    """An import, and the statement that makes the backbone; a comment where nothing can make it again.

    Args:
        known: the source was noted when the backbone was made. A model of timm does not tell which weights it holds.
    """
    if source is None or not source.has_weights:
        name = f" ({source})" if source else ""
        return "", f"# backbone: the module that the model was trained on{name}, with the same weights"
    if source.name == PACKAGED or source.checkpoint_file is not None:
        checkpoint = {} if source.checkpoint_file is None else {"checkpoint": source.checkpoint_file}
        call = _arguments([source.name], {**checkpoint, **source.kwargs})
        return "import branchtune as bt\n", f"backbone = bt.create_backbone({call})"
    name = f"{source.name}.{source.tag}" if source.tag else source.name
    call = _arguments([name], {"pretrained": True, "num_classes": 0, **source.kwargs})
    doubt = "" if known else "# If the model was trained on other weights, load them here: PEFT cannot tell.\n"
    return "import timm\n", f"{doubt}backbone = timm.create_model({call})"


def _import(entry: dict[str, Any]) -> str:
    module, _, name = entry["class"].rpartition(".")
    return "" if module == "branchtune" else f"from {module} import {name}\n"


def _call(entry: dict[str, Any]) -> str:
    """Code that makes an object again from what `describe` says of it."""
    module, _, name = entry["class"].rpartition(".")
    return f"{'bt.' if module == 'branchtune' else ''}{name}({_arguments([], entry['args'])})"


def _arguments(positional: list[Any], keywords: dict[str, Any]) -> str:
    return ", ".join([*map(repr, positional), *(f"{key}={value!r}" for key, value in keywords.items())])
