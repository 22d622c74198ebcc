"""Decoders: sizes, counts and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune import UserError
from branchtune.decoders.pooled import PooledHead
from branchtune.decoders.resample import resize
from contract_backbones import TASKS, grow

CHANNELS = (4, 6, 8, 10)


def maps(sizes: list[tuple[int, int]], batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


ODD = [(17, 25), (9, 13), (5, 7), (3, 4)]


@pytest.mark.parametrize("decoder", [bt.LightDecoder(8), bt.LightDecoder(16, stride=3), bt.HRNetDecoder()], ids=str)
@pytest.mark.parametrize("size", [(68, 100), (65, 97), (64, 64), (1, 3)])
def test_output_is_at_the_inputs_resolution(decoder: bt.Decoder, size: tuple[int, int]) -> None:
    module = decoder.build(CHANNELS, 5)
    output = module(maps(ODD), size)
    assert output.shape == (2, 5, *size)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("decoder", [bt.LightDecoder(8), bt.HRNetDecoder()], ids=str)
def test_every_level_is_read(decoder: bt.Decoder) -> None:
    module = decoder.build(CHANNELS, 5).eval()
    features = maps(ODD)
    for feature in features:
        feature.requires_grad_()
    module(features, (68, 100)).square().sum().backward()
    assert all(feature.grad is not None and feature.grad.abs().max() > 0 for feature in features)


def test_light_decoder_keeps_no_batch_statistics() -> None:
    module = bt.LightDecoder(8).build(CHANNELS, 2).train()
    assert not list(module.buffers())
    both, alone = maps(ODD), [m[:1] for m in maps(ODD)]
    assert torch.allclose(module(both, (32, 32))[:1], module(alone, (32, 32)), atol=1e-6)


def test_hrnet_decoder_parameters_of_one_task() -> None:
    module = bt.HRNetDecoder().build((192, 384, 768, 768), 21)
    reductions = 192 * 18 + 384 * 36 + 768 * 72 + 768 * 144
    head = 270 * 1080 + 1080 + 2 * 1080 + 1080 * 21 + 21
    assert reductions == 183_168
    assert sum(p.numel() for p in module.parameters()) == reductions + head


def test_hrnet_decoder_of_another_number_of_levels_is_refused() -> None:
    with pytest.raises(UserError, match="HRNetDecoder has 4 widths, the backbone 3 levels: set widths"):
        bt.HRNetDecoder().build((8, 8, 8), 2)
    three = bt.HRNetDecoder(widths=(4, 8, 8)).build((8, 8, 8), 2)
    assert three([torch.zeros(2, 8, n, n) for n in (4, 2, 1)], (9, 9)).shape == (2, 2, 9, 9)


@pytest.mark.parametrize("options", [{"dim": 12}, {"dim": 0}, {"stride": 0}])
def test_light_decoder_settings_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        bt.LightDecoder(**options)


def test_pooled_head_reads_the_mean_of_the_last_level() -> None:
    head = PooledHead(CHANNELS, 3)
    features = maps(ODD)
    assert head(features, (1, 1)).shape == (2, 3)
    shuffled = features[-1].flatten(2)[:, :, torch.randperm(12)].view_as(features[-1])
    assert torch.allclose(head([shuffled], (1, 1)), head(features, (1, 1)), atol=1e-6)


def test_resize_returns_the_tensor_itself_at_its_own_size() -> None:
    x = torch.zeros(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x
    assert resize(x, (6, 5)).shape == (1, 2, 6, 5)


def test_each_dense_task_has_a_decoder_and_image_tasks_a_pooled_head() -> None:
    model = grow("vit_tiny", bt.TaskTree.shared(TASKS, 4), None)
    kinds = {task: type(model.decoders[task]).__name__ for task in TASKS}
    assert kinds == {"a": "LightModule", "b": "LightModule", "c": "LightModule", "d": "PooledHead"}
    assert all(isinstance(module, nn.Module) for module in model.decoders.values())


@pytest.mark.parametrize("size", [(8, 8), (11, 7), (3, 2), (4, 24), (1, 1)])
def test_the_gradient_of_resize_is_that_of_interpolate(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    fast, plain = resize(x, size), F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fast, plain, rtol=0, atol=0)
    weights = torch.randn_like(plain)
    one, two = (torch.autograd.grad(y, x, weights)[0] for y in (fast, plain))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_resize_can_be_differentiated_twice_and_mapped() -> None:
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, (5, 4)), x)
    assert torch.autograd.gradgradcheck(lambda x: resize(x, (5, 4)).square(), x)
    loss = torch.func.grad(lambda x: resize(x[None], (5, 4)).square().sum())
    torch.testing.assert_close(torch.vmap(loss)(x.detach()), torch.stack([loss(row) for row in x.detach()]))


def test_resize_in_autocast_keeps_the_dtype_of_its_gradient() -> None:
    x = torch.randn(1, 2, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        resize(x, (6, 6)).float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
