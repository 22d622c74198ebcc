"""`create_backbone(image_size=)`: passed on where the constructor takes it, and no trace of the attempt elsewhere."""

from __future__ import annotations

import pytest
import torch

from branchtune.backbone.source import create_backbone, source_of
from branchtune.config import BackboneConfig, DataConfig, RunConfig
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.run.workbench import Workbench
from branchtune.tasks.depth import Depth


def test_a_transformer_is_made_for_the_size_and_a_convolutional_network_as_always() -> None:
    vit = create_backbone("test_vit", pretrained=False, image_size=(32, 48))
    assert source_of(vit).kwargs == {"img_size": (32, 48)}
    torch.manual_seed(5)
    plain = create_backbone("test_resnet", pretrained=False)
    torch.manual_seed(5)
    sized = create_backbone("test_resnet", pretrained=False, image_size=(32, 48))
    assert source_of(sized).kwargs == {}
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), sized.parameters(), strict=True))


def test_an_explicit_size_wins_and_another_wrong_argument_is_still_named() -> None:
    assert source_of(create_backbone("test_vit", pretrained=False, image_size=(32, 48), img_size=64)).kwargs == {
        "img_size": 64
    }
    with pytest.raises(UserError, match=r"with foo=3 "):
        create_backbone("test_resnet", pretrained=False, image_size=(32, 48), foo=3)


def test_touching_the_backbone_of_a_run_leaves_the_random_numbers_alone() -> None:
    config = RunConfig(
        tasks={"depth": Depth("depth")},
        seed=3,
        backbone=BackboneConfig("test_vit", pretrained=False),
        data=DataConfig(image_size=(32, 32)),
        trainer={"accelerator": "cpu"},
    )
    before = torch.get_rng_state()
    backbone = Workbench(config, Reporter(quiet=True)).backbone
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    same = create_backbone("test_vit", pretrained=False, image_size=(32, 32))
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), same.parameters(), strict=True))
