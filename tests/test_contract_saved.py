"""Over all contract backbones: a model that was saved and loaded answers the same, bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import branchtune as bt
from contract_backbones import CONTRACTS, TREES, grow, randomise, traced

ADAPTERS: dict[str, bt.Adapter] = {"lora": bt.LoRA(r=2), "bottleneck": bt.Bottleneck()}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_saved_and_loaded_is_the_same_model(name: str, adapter: str, tmp_path: Path) -> None:
    contract = CONTRACTS[name]
    model = randomise(grow(name, TREES["interleaved"], ADAPTERS[adapter], extras=("norms",)))
    model.save_pretrained(tmp_path / "model")
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "model", backbone=traced(name)[0])
    with torch.no_grad():
        outputs, again = (m(contract.images(2), **contract.inputs(2)) for m in (model, loaded))
    for task, output in outputs.items():
        assert torch.equal(output, again[task])
