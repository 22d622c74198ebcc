"""Adapt one frozen vision backbone to many tasks with a tree of adapters: shared early, task-specific late.

Public names are imported on first use, so that `import branchtune` and the command line's help need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from branchtune._version import __version__

if TYPE_CHECKING:
    from branchtune.adapters.adapter import Adapter
    from branchtune.adapters.bottleneck import Bottleneck
    from branchtune.adapters.comb import Comb
    from branchtune.adapters.lora import LoRA
    from branchtune.affinity import Affinity, measure_affinity
    from branchtune.backbone.source import create_backbone
    from branchtune.backbone.trace import trace_backbone
    from branchtune.decoders.decoder import Decoder
    from branchtune.decoders.hrnet import HRNetDecoder
    from branchtune.decoders.light import LightDecoder
    from branchtune.errors import UserError
    from branchtune.evaluation.delta_m import delta_m
    from branchtune.low_memory.model import LowMemoryModel
    from branchtune.merging.model import MergedModel
    from branchtune.model import MultiTaskModel
    from branchtune.planning import plan
    from branchtune.shipping.export_onnx import export_onnx
    from branchtune.shipping.export_peft import export_peft
    from branchtune.shipping.export_torch import export_torch
    from branchtune.tasks.classification import ImageClassification
    from branchtune.tasks.depth import Depth
    from branchtune.tasks.edges import Edges
    from branchtune.tasks.normals import Normals
    from branchtune.tasks.parts import HumanParts
    from branchtune.tasks.regression import ImageRegression
    from branchtune.tasks.saliency import Saliency
    from branchtune.tasks.semseg import SemanticSegmentation
    from branchtune.tasks.task import Task
    from branchtune.training.adatask import AdaTask
    from branchtune.training.weighted_sum import WeightedSum
    from branchtune.tree import TaskTree

_MODULES = {
    "Adapter": "adapters.adapter",
    "AdaTask": "training.adatask",
    "Affinity": "affinity",
    "Bottleneck": "adapters.bottleneck",
    "Comb": "adapters.comb",
    "Decoder": "decoders.decoder",
    "Depth": "tasks.depth",
    "Edges": "tasks.edges",
    "HRNetDecoder": "decoders.hrnet",
    "HumanParts": "tasks.parts",
    "ImageClassification": "tasks.classification",
    "ImageRegression": "tasks.regression",
    "LightDecoder": "decoders.light",
    "LoRA": "adapters.lora",
    "LowMemoryModel": "low_memory.model",
    "MergedModel": "merging.model",
    "MultiTaskModel": "model",
    "Normals": "tasks.normals",
    "Saliency": "tasks.saliency",
    "SemanticSegmentation": "tasks.semseg",
    "Task": "tasks.task",
    "TaskTree": "tree",
    "UserError": "errors",
    "WeightedSum": "training.weighted_sum",
    "create_backbone": "backbone.source",
    "delta_m": "evaluation.delta_m",
    "export_onnx": "shipping.export_onnx",
    "export_peft": "shipping.export_peft",
    "export_torch": "shipping.export_torch",
    "measure_affinity": "affinity",
    "plan": "planning",
    "trace_backbone": "backbone.trace",
}

__all__ = [
    "AdaTask",
    "Adapter",
    "Affinity",
    "Bottleneck",
    "Comb",
    "Decoder",
    "Depth",
    "Edges",
    "HRNetDecoder",
    "HumanParts",
    "ImageClassification",
    "ImageRegression",
    "LightDecoder",
    "LoRA",
    "LowMemoryModel",
    "MergedModel",
    "MultiTaskModel",
    "Normals",
    "Saliency",
    "SemanticSegmentation",
    "Task",
    "TaskTree",
    "UserError",
    "WeightedSum",
    "__version__",
    "create_backbone",
    "delta_m",
    "export_onnx",
    "export_peft",
    "export_torch",
    "measure_affinity",
    "plan",
    "trace_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'branchtune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"branchtune.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
