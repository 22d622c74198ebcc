"""Small models that look trained, and what must be equal between one and its extension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import branchtune as bt
from branchtune.extension import continued_nodes
from small_model import small_model

OLD = ["a", "b", "c"]


def images(model: bt.MultiTaskModel, count: int = 2) -> Tensor:
    like = next(model.parameters())
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5)).to(like)


_MADE: dict[str, bt.MultiTaskModel] = {}


def trained(**arguments: Any) -> bt.MultiTaskModel:
    """A model in eval mode with all that it owns away from where it began; made once, so nothing may change it."""
    if repr(arguments) not in _MADE:
        _MADE[repr(arguments)] = _trained(**arguments)
    return _MADE[repr(arguments)]


def _trained(**arguments: Any) -> bt.MultiTaskModel:
    model = small_model(**arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in model.decoders.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


def data_of(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def old_name(name: str, names: dict[str, str]) -> str:
    """The name in the old state dict of what the new one calls `name`."""
    if not name.startswith("backbone.adapters."):
        return name
    parts = name.split(".")
    return ".".join([*parts[:2], names.get(parts[2], parts[2]), *parts[3:]])


def assert_continued(old: bt.MultiTaskModel, new: bt.MultiTaskModel) -> set[str]:
    """Every tensor of the old state dict is in the new one, byte for byte; returns the names that are new."""
    names = continued_nodes(old.tree, new.tree)
    before, after = old.state_dict(), new.state_dict()
    by_old = {old_name(name, names): name for name in after}
    assert before.keys() <= by_old.keys()
    for name, tensor in before.items():
        assert data_of(after[by_old[name]]) == data_of(tensor), name
    return {by_old[name] for name in by_old.keys() - before.keys()}


def assert_same(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    assert list(expected) == list(found)
    for name, output in expected.items():
        assert torch.equal(output, found[name]), name


def step(model: bt.MultiTaskModel, tasks: list[str] | None = None) -> None:
    """Some steps in training mode on the sum of the tasks' outputs, with momentum and weight decay."""
    optimizer = bt.WeightedSum(lr=0.01, weight_decay=0.1).build(model)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(images(model), tasks=tasks)
        torch.stack([(output - 0.3).abs().mean() for output in outputs.values()]).sum().backward()
        optimizer.step()
    model.eval()
