"""What adapter_config.json says of a model: everything but the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from branchtune._version import __version__
from branchtune.adapters.adapter import Adapter
from branchtune.backbone.check import geometry_difference
from branchtune.backbone.extras import extra_parameters
from branchtune.backbone.fingerprint import sketch_difference, weights_fingerprint, weights_sketch
from branchtune.backbone.source import BackboneSource, source_of
from branchtune.backbone.spec import BackboneSpec
from branchtune.backbone.spec_json import spec_from_json, spec_to_json
from branchtune.decoders.decoder import Decoder
from branchtune.errors import UserError, unknown
from branchtune.model import MultiTaskModel
from branchtune.shipping.classes import describe, rebuild
from branchtune.shipping.files import ADAPTERS, DECODERS
from branchtune.shipping.newer_version import newer_version
from branchtune.tasks.task import Task
from branchtune.tree import TaskTree

FORMAT = 2


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of a `MultiTaskModel`, where its backbone comes from, and how to recognise it.

    Attributes:
        source: how to create the backbone again; None for a module of the user's own.
        dtype: of the backbone's weights, e.g. "float32".
        fingerprint: of the frozen weights; None where the whole backbone was trained and is saved.
        sketch: to compare backbones by where their fingerprints differ, see `weights_sketch`.
        parameters: counts by owner, for the reader.
        hashes: SHA-256 of the files of weights, by name.
        train_tasks: the tasks that train; None for all. Files have it since format 2.
    """

    tasks: tuple[Task, ...]
    tree: TaskTree
    adapter: Adapter | None
    decoder: Decoder
    extras: tuple[str, ...]
    train_backbone: bool
    spec: BackboneSpec
    source: BackboneSource | None
    dtype: str
    fingerprint: str | None
    sketch: dict[str, Any]
    parameters: dict[str, int]
    hashes: dict[str, str]
    train_tasks: tuple[str, ...] | None = None

    @classmethod
    def of(cls, model: MultiTaskModel, files: Mapping[str, bytes]) -> ModelConfig:
        """Describe a model whose weights `files` hold, by name."""
        branched = model.backbone
        names = _frozen_names(model.spec, branched.extra_names)
        # SHA-256 takes half of the time that saving takes, and lets other threads run.
        with ThreadPoolExecutor() as pool:
            hashes = {name: pool.submit(hashlib.sha256, data) for name, data in files.items()}
            fingerprint, sketch = None, {}
            if not branched.train_backbone:
                fingerprint = pool.submit(weights_fingerprint, branched.frozen, names)
                sketch = weights_sketch(branched.frozen, names)
        return cls(
            tasks=tuple(model.tasks.values()),
            tree=model.tree,
            adapter=model.adapter,
            decoder=model.decoder,
            extras=model.extras,
            train_backbone=branched.train_backbone,
            spec=model.spec,
            source=_source(branched.frozen),
            dtype=str(next(branched.frozen.parameters()).dtype).removeprefix("torch."),
            fingerprint=None if fingerprint is None else fingerprint.result(),
            sketch=sketch,
            parameters=model.count_parameters(),
            hashes={name: digest.result().hexdigest() for name, digest in hashes.items()},
            train_tasks=None if len(model.train_tasks) == len(model.tasks) else model.train_tasks,
        )

    def to_json(self) -> dict[str, Any]:
        # The oldest format that can say it, so that older versions read what they can.
        partial = {} if self.train_tasks is None else {"train_tasks": list(self.train_tasks)}
        return {
            "format": FORMAT if partial else 1,
            "branchtune_version": __version__,
            "tasks": [describe(task) for task in self.tasks],
            "tree": self.tree.to_json(),
            "adapter": None if self.adapter is None else describe(self.adapter),
            "decoder": describe(self.decoder),
            "extras": list(self.extras),
            "train_backbone": self.train_backbone,
            **partial,
            "backbone": None if self.source is None else self.source.to_json(),
            "dtype": self.dtype,
            "fingerprint": self.fingerprint,
            "parameters": self.parameters,
            "hashes": self.hashes,
            "sketch": self.sketch,
            "spec": spec_to_json(self.spec),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`.

        Raises:
            UserError: a newer format, the configuration of something else, a key that is missing, unknown or of the
                wrong type, a class that cannot be imported; it says so where a newer version has saved it.
        """
        _check_format(data.get("format"))
        try:
            return cls._read(data)
        except UserError as error:
            raise UserError(f"{error}{newer_version(data.get('branchtune_version'))}") from error

    @classmethod
    def _read(cls, data: dict[str, Any]) -> ModelConfig:
        _check_keys(data)
        try:
            config = cls(
                tasks=tuple(rebuild(entry, Task) for entry in data["tasks"]),  # type: ignore[type-abstract]
                tree=TaskTree.from_json(data["tree"]),
                adapter=None if data["adapter"] is None else rebuild(data["adapter"], Adapter),  # type: ignore[type-abstract]
                decoder=rebuild(data["decoder"], Decoder),  # type: ignore[type-abstract]
                extras=tuple(data["extras"]),
                train_backbone=bool(data["train_backbone"]),
                spec=spec_from_json(data["spec"]),
                source=None if data["backbone"] is None else _portable(BackboneSource(**data["backbone"])),
                dtype=data["dtype"],
                fingerprint=data["fingerprint"],
                sketch=dict(data["sketch"]),
                parameters=dict(data["parameters"]),
                hashes={name: data["hashes"][name] for name in (ADAPTERS, DECODERS)},
                train_tasks=tuple(data["train_tasks"]) if "train_tasks" in data else None,
            )
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"damaged ({type(error).__name__}: {error}), save the model again") from error
        names = [task.name for task in config.tasks]
        for name in config.train_tasks or ():
            if name not in names:
                raise unknown("task in train_tasks", name, names)
        if not isinstance(getattr(torch, str(config.dtype), None), torch.dtype):
            raise UserError(f"damaged (dtype {config.dtype!r}), save the model again")
        return config

    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def difference(self, backbone: nn.Module) -> str | None:
        """How `backbone` differs from the one that the model was trained on, in one clause; None where it does not."""
        modules = {name for name, _ in backbone.named_modules()}
        parameters = {name for name, _ in backbone.named_parameters()}
        for name in (*_modules(self.spec), *self.spec.parameters):
            if name not in modules and name not in parameters:
                return f"it has no {name}"
        if found := geometry_difference(self.spec, backbone):
            return found
        if self.fingerprint is None:
            return None
        names = _frozen_names(self.spec, extra_parameters(backbone, self.spec, self.extras))
        if weights_fingerprint(backbone, names) == self.fingerprint:
            return None
        return sketch_difference(self.sketch, backbone, names)

    def build(self, backbone: nn.Module, checkpoint_levels: bool | Sequence[int] = False) -> MultiTaskModel:
        """The model, its own weights still as at the start of training."""
        return MultiTaskModel(
            backbone,
            self.tasks,
            self.tree,
            self.adapter,
            self.decoder,
            extras=self.extras,
            train_backbone=self.train_backbone,
            train_tasks=self.train_tasks,
            checkpoint_levels=checkpoint_levels,
            spec=self.spec,
        )


def _check_format(version: Any) -> None:
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"format {version} is newer than this version of branchtune reads ({FORMAT}): update branchtune"
        )


def _check_keys(data: dict[str, Any]) -> None:
    version = data.get("format")
    if "peft_type" in data:
        raise UserError("this is an adapter of PEFT, not a model of branchtune: load it with peft")
    known = {"format", "branchtune_version", "backbone"} | {f.name for f in fields(ModelConfig)} - {"source"}
    if version != 2:
        known.remove("train_tasks")
    if version not in (1, FORMAT) or known - data.keys():
        missing = sorted(known - data.keys())
        raise UserError(f"damaged ({f'no {missing[0]!r}' if missing else f'format {version!r}'}), save the model again")
    if data.keys() - known:
        raise unknown("key", min(data.keys() - known), known)


def _frozen_names(spec: BackboneSpec, extras: Collection[str]) -> list[str]:
    return [name for name in spec.parameters if name not in extras]


def _modules(spec: BackboneSpec) -> Iterator[str]:
    for level in spec.levels:
        yield from (level.start, level.end)
    yield from (site.name for site in spec.sites)
    yield from (side.module for side in spec.side_inputs)


def _source(backbone: nn.Module) -> BackboneSource | None:
    """The backbone's source, unless its arguments (a norm layer's class, say) cannot be written down."""
    source = source_of(backbone)
    try:
        return source and _portable(BackboneSource(**json.loads(json.dumps(source.to_json()))))
    except (TypeError, ValueError):
        return None


def _portable(source: BackboneSource) -> BackboneSource | None:
    return None if source.names_files else source
