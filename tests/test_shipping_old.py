"""A model saved by an older version still loads, and answers as it did."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import branchtune as bt
import old_model


def load() -> bt.MultiTaskModel:
    folder = old_model.FOLDER
    return bt.MultiTaskModel.from_pretrained(folder / "model", backbone_checkpoint=folder / old_model.WEIGHTS)


def test_a_model_of_format_1_gives_its_stored_outputs() -> None:
    with torch.no_grad():
        outputs = old_model.sampled(load()(old_model.images()))
    stored = load_file(old_model.FOLDER / old_model.OUTPUTS)
    assert set(outputs) == set(stored) == {"depth", "semseg", "scene"}
    for name, expected in stored.items():
        assert expected.abs().max() > 0.1, name
        torch.testing.assert_close(outputs[name], expected, rtol=1e-5, atol=1e-5)


def test_it_is_of_that_format_and_saved_again_stays_the_same_model(tmp_path: Path) -> None:
    stored = old_model.FOLDER / "model"
    assert json.loads((stored / "adapter_config.json").read_text())["format"] == 1
    load().save_pretrained(tmp_path / "model")
    for file in ("adapter_model.safetensors", "decoders.safetensors"):
        old, new = load_file(stored / file), load_file(tmp_path / "model" / file)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
