"""Fitting decoders moves the decoders and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from affinity_cases import PLAIN_LEVELS, Fit, Plain, batches, drop_labels
from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.decoder_fit import fit_decoders
from branchtune.decoders.hrnet import HRNetDecoder
from branchtune.decoders.light import LightDecoder
from branchtune.errors import UserError
from branchtune.model import MultiTaskModel

TASKS = [Fit("a"), Fit("b")]


def model_of(adapter: Adapter | None = None, decoder: Any = None) -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel(
        Plain(), TASKS, adapter=adapter, decoder=decoder or LightDecoder(dim=8), levels=PLAIN_LEVELS, image_size=32
    )


def constant(value: float) -> list[dict[str, Any]]:
    loader = batches(TASKS)
    for batch in loader:
        for task in TASKS:
            batch[task.name] = torch.full_like(batch[task.name], value)
    return loader


@pytest.mark.parametrize("adapter", [None, LoRA(r=2)])
def test_losses_fall_and_only_decoders_move(adapter: Adapter | None) -> None:
    model = model_of(adapter)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    history: list[dict[str, float]] = []
    images = fit_decoders(model, constant(1.0), 20, 3e-2, on_step=lambda step, losses: history.append(losses))
    assert images == 20 * 4
    assert len(history) == 20
    assert all(history[-1][name] < 0.3 * history[0][name] for name in ("a", "b"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("decoders."))
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_decoders_with_batch_statistics_gather_them() -> None:
    model = model_of(decoder=HRNetDecoder(widths=(4, 4, 4)))
    fit_decoders(model, constant(1.0), 2, 1e-3)
    statistics = [value for name, value in model.decoders.state_dict().items() if name.endswith("running_var")]
    assert statistics
    assert all((value != 1).any() for value in statistics)


def test_a_task_without_labels_is_left_alone() -> None:
    model, loader = model_of(), constant(1.0)
    drop_labels(loader, "b", range(8))
    before = {name: value.clone() for name, value in model.decoders["b"].state_dict().items()}
    history: list[dict[str, float]] = []
    fit_decoders(model, loader, 3, 1e-2, on_step=lambda step, losses: history.append(losses))
    assert [set(losses) for losses in history] == [{"a"}] * 3
    assert all(torch.equal(value, before[name]) for name, value in model.decoders["b"].state_dict().items())


def test_weights_of_tasks_count_and_nothing_decays() -> None:
    model = model_of()
    model.tasks["b"].weight = 0.0
    fit_decoders(model, constant(1.0), 1, lr=0.5)
    kept = model_of().decoders["b"].state_dict()
    for name, value in model.decoders["b"].state_dict().items():
        assert torch.equal(value, kept[name])


def test_no_steps_no_change() -> None:
    model = model_of()
    assert fit_decoders(model, constant(1.0), 0, 1e-2) == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), model_of().parameters(), strict=True))


def test_an_iterator_that_cannot_start_again_gives_what_it_has() -> None:
    def once() -> Iterator[dict[str, Any]]:
        yield from constant(1.0)

    assert fit_decoders(model_of(), once(), 10, 1e-2) == 8


def test_no_batch_and_infinite_loss_are_refused() -> None:
    with pytest.raises(UserError, match="the loader gives no batch"):
        fit_decoders(model_of(), [], 1, 1e-2)
    loader = constant(1.0)
    loader[1]["b"][:] = torch.inf
    with pytest.raises(UserError, match=r"task 'b' became inf at step 2 .*\(samples s4, s5, s6, s7\)"):
        fit_decoders(model_of(), loader, 2, 1e-2)


def test_no_batch_is_taken_beyond_the_steps() -> None:
    loader = iter(constant(1.0) * 3)
    fit_decoders(model_of(), loader, 4, 1e-2)
    assert len(list(loader)) == 2
