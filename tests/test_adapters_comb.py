"""MTLoRA's comb: the tasks' streams leave the shared one in the last block of every level (arXiv 2403.20320)."""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from branchtune.adapters.comb import TASK_LAYERS, Comb
from branchtune.backbone.spec import BackboneSpec
from branchtune.branching import BranchedBackbone
from small_model import small_model, small_swin

TASKS = ("a", "b", "c")


FORKED = bt.TaskTree([[TASKS], [TASKS], [("a", "c"), ("b",)], [("a",), ("b",), ("c",)]])


def comb_model(levels: str = "natural", tree: bt.TaskTree | None = None, **arguments: object) -> bt.MultiTaskModel:
    comb = Comb(r=2, lora_alpha=8.0, r_task=3, task_alpha=6.0)
    return small_model(tree=tree, adapter=comb, levels=levels, **arguments).eval()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def lora(x: Tensor, module: nn.Module, scale: float) -> Tensor:
    return scale * x @ module.lora_A.T @ module.lora_B.T


class Equations:
    """The reference's §15.1 for one task, written out on timm's Swin, one layer after the other."""

    def __init__(self, model: bt.MultiTaskModel, task: str) -> None:
        self.swin, self.adapters, self.task = model.backbone.frozen, model.backbone.adapters, task
        self.tree = model.tree

    def update(self, level: int, block: int, layer: str, own: bool, x: Tensor) -> Tensor:
        group = self.tree.levels[level][self.tree.group_of(self.task, level)]
        node = f"{level}/{self.task}/stream" if own else f"{level}/{'+'.join(group)}"
        return lora(
            x, self.adapters[node][f"layers/{level}/blocks/{block}/{layer.replace('.', '/')}"], 2.0 if own else 4.0
        )

    def frozen(self, module: nn.Linear, x: Tensor) -> Tensor:
        return nn.functional.linear(x, module.weight, module.bias)

    def maps(self, x: Tensor) -> list[Tensor]:
        swin, found = self.swin, []
        x = swin.patch_embed.norm(swin.patch_embed.proj(x).permute(0, 2, 3, 1))
        for level, stage in enumerate(swin.layers):
            if level:
                x = self.merge(stage.downsample, x)
            stream = None
            for index, block in enumerate(stage.blocks):
                x, stream = self.block(level, index, block, x)
            found.append(stream.permute(0, 3, 1, 2))
        return found

    def merge(self, merging: nn.Module, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.frozen(merging.reduction, merging.norm(x))

    def block(self, level: int, index: int, block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.attention(level, index, block, block.norm1(x))
        projected = self.frozen(block.attn.proj, attended)
        back = lambda windows: self.unwindow(windows, x, block)  # noqa: E731
        shared = x + back(projected + self.update(level, index, "attn.proj", False, attended))
        own = x + back(projected + self.update(level, index, "attn.proj", True, attended))
        normed, own_normed = block.norm2(shared), block.norm2(own)
        hidden = self.frozen(block.mlp.fc1, normed)
        h = nn.functional.gelu(hidden + self.update(level, index, "mlp.fc1", False, normed))
        h_own = nn.functional.gelu(hidden + self.update(level, index, "mlp.fc1", True, own_normed))
        out = self.frozen(block.mlp.fc2, h)
        return (
            shared + out + self.update(level, index, "mlp.fc2", False, h),
            own + out + self.update(level, index, "mlp.fc2", True, h_own),
        )

    def attention(self, level: int, index: int, block: nn.Module, x: Tensor) -> Tensor:
        """One head, no shift in the only block of a stage."""
        b, h, w, c = x.shape
        size = block.window_size[0]
        x = x.reshape(b, h // size, size, w // size, size, c).transpose(2, 3).reshape(-1, size * size, c)
        qkv = self.frozen(block.attn.qkv, x) + self.update(level, index, "attn.qkv", False, x)
        q, k, v = qkv.chunk(3, dim=-1)
        bias = block.attn._get_rel_pos_bias().squeeze(0)
        return torch.softmax(q @ k.mT * c**-0.5 + bias, dim=-1) @ v

    def unwindow(self, windows: Tensor, like: Tensor, block: nn.Module) -> Tensor:
        b, h, w, c = like.shape
        size = block.window_size[0]
        return windows.reshape(b, h // size, w // size, size, size, c).transpose(2, 3).reshape(like.shape)


@pytest.mark.parametrize("tree", [None, FORKED], ids=["comb", "forked"])
@pytest.mark.parametrize("task", TASKS)
def test_streams_equal_the_equations_in_outputs_and_gradients(task: str, tree: bt.TaskTree | None) -> None:
    model, x = comb_model(tree=tree), images()
    size = (32, 32)
    fast = model(x)[task]
    slow = model.tasks[task].activate(model.decoders[task](Equations(model, task).maps(x), size))
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    gradients = [
        torch.autograd.grad(out.square().sum(), parameters, allow_unused=True, retain_graph=True)
        for out in (fast, slow)
    ]
    largest = max(float(gradient.abs().max()) for gradient in gradients[1] if gradient is not None)
    for name, one, two in zip(names, *gradients, strict=True):
        assert (one is None) == (two is None), name
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12 * largest)


def test_a_loss_reaches_its_own_stream_and_the_shared_adapters_alone() -> None:
    model = comb_model()
    model(images())["b"].square().sum().backward()
    for name, parameter in model.backbone.adapters.named_parameters():
        if "/stream" in name:
            assert (parameter.grad is None) == ("/b/" not in name), name
    reached = [n for n, p in model.backbone.adapters.named_parameters() if "/stream" not in n and p.grad is not None]
    assert len(reached) > 20


@pytest.mark.parametrize("levels", ["natural", "after_merging"])
def test_at_the_start_every_stream_is_the_frozen_backbone(levels: str) -> None:
    model = comb_model(levels)
    for name, parameter in model.backbone.adapters.named_parameters():
        if name.endswith("lora_B"):
            nn.init.zeros_(parameter)
    plain = small_model(tree=None, adapter=None, levels=levels).eval()
    for maps, expected in zip(model.backbone(images()).values(), plain.backbone(images()).values(), strict=True):
        for one, two in zip(maps, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("levels", ["natural", "after_merging"])
def test_a_subset_of_tasks_equals_all_of_them(levels: str) -> None:
    model, x = comb_model(levels), images()
    everything = model(x)
    for wanted in (["b"], ["c", "a"]):
        for name, output in model(x, tasks=wanted).items():
            torch.testing.assert_close(output, everything[name], rtol=1e-12, atol=1e-12)


PLUS = ["qkv", "proj", "fc1", "fc2", "reduction"]


@pytest.mark.parametrize("targets", [None, PLUS], ids=["default", "plus"])
@pytest.mark.parametrize("tree", [None, FORKED], ids=["comb", "forked"])
@pytest.mark.parametrize("levels", ["natural", "after_merging"])
def test_without_the_tasks_streams_it_is_plain_lora(
    levels: str, tree: bt.TaskTree | None, targets: list[str] | None
) -> None:
    """Streams whose adapters are those of their group compute what the group computes without any stream."""
    comb = Comb(r=2, lora_alpha=8.0, r_task=2, task_alpha=8.0, target_modules=targets)
    lora_only = bt.LoRA(r=2, lora_alpha=8.0, target_modules=targets)
    model, plain = (small_model(tree=tree, adapter=adapter, levels=levels).eval() for adapter in (comb, lora_only))
    plain.decoders.load_state_dict(model.decoders.state_dict())
    for node in plain.tree.nodes():
        shared = plain.backbone.adapters[node.key]
        model.backbone.adapters[node.key].load_state_dict(shared.state_dict())
        for task in node.tasks:
            stream = model.backbone.adapters[f"{node.level}/{task}/stream"]
            stream.load_state_dict({key: shared.state_dict()[key] for key in stream.state_dict()})
    expected, found = plain(images()), model(images())
    for task in TASKS:
        torch.testing.assert_close(found[task], expected[task], rtol=1e-11, atol=1e-11)
    for outputs in (expected, found):
        sum(output.square().sum() for output in outputs.values()).backward()
    largest = max(float(p.grad.abs().max()) for p in plain.backbone.adapters.parameters() if p.grad is not None)
    for node in plain.tree.nodes():
        keys = [node.key, *(f"{node.level}/{task}/stream" for task in node.tasks)]
        parts = [dict(model.backbone.adapters[key].named_parameters()) for key in keys]
        for name, parameter in plain.backbone.adapters[node.key].named_parameters():
            gradients = [part[name].grad for part in parts if name in part and part[name].grad is not None]
            torch.testing.assert_close(sum(gradients), parameter.grad, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("targets", [None, PLUS], ids=["default", "plus"])
@pytest.mark.parametrize("levels", ["natural", "after_merging"])
def test_predicted_cost_is_counted_cost(levels: str, targets: list[str] | None) -> None:
    model = small_model(tree=None, adapter=Comb(r=2, r_task=3, target_modules=targets), levels=levels).eval()
    assert model.cost().parameters == model.count_parameters()["adapters"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.backbone(images(1))
    assert model.cost().macs == counter.get_total_flops() // 2


def test_attention_runs_once_whatever_the_number_of_tasks() -> None:
    model, calls = comb_model(), []
    for name, module in model.backbone.frozen.named_modules():
        if name.endswith("attn.qkv"):
            module.register_forward_hook(lambda *_: calls.append(1))
    model(images())
    assert len(calls) == 4


def test_stochastic_depth_follows_train_and_eval() -> None:
    model = comb_model()
    blocks = [block.replay for block in model.backbone.streams._blocks]
    model.train()(images())
    assert all(block.training for block in blocks)
    model.eval()(images())
    assert not any(block.training for block in blocks)


def test_extras_train_in_streams_too() -> None:
    model = comb_model(extras=["norms"])
    model(images())["a"].square().sum().backward()
    last = model.backbone.frozen.layers[3].blocks[0].norm2
    assert last.weight.grad is not None
    assert last.weight.grad.abs().max() > 0


def test_a_forward_of_ones_own_on_a_block_acts_in_the_streams_too() -> None:
    def twice(block: nn.Module, x: Tensor) -> Tensor:
        return 2 * type(block).forward(block, x)

    backbone, x = small_swin().double(), images()
    plain, comb = bt.LoRA(r=2), Comb(r=2, r_task=2)
    for level in range(4):
        block = backbone.layers[level].blocks[0]
        block.forward = MethodType(twice, block)
    spec = bt.trace_backbone(backbone)
    features = [
        BranchedBackbone(backbone, spec, bt.TaskTree.shared(TASKS, 4), adapter).double().eval()(x)["a"]
        for adapter in (plain, comb)
    ]
    for found, expected in zip(*features, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("assign", [False, True])
def test_streams_follow_weights_that_are_put_in_place_of_others(assign: bool) -> None:
    model, other = comb_model(extras=["norms"]), comb_model(extras=["norms"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    expected, state = model(images()), model.state_dict()
    found = torch.func.functional_call(other, state, (images(),))
    other.load_state_dict(state, assign=assign)
    for name, output in other(images()).items():
        assert torch.equal(output, expected[name])
        assert torch.equal(found[name], expected[name])


def test_saved_and_loaded_it_answers_the_same(tmp_path: object) -> None:
    model = comb_model()
    model.save_pretrained(f"{tmp_path}/model")
    again = bt.MultiTaskModel.from_pretrained(f"{tmp_path}/model", backbone=small_swin_of(model))
    for name, output in again.double()(images()).items():
        torch.testing.assert_close(output, model(images())[name], rtol=1e-12, atol=1e-12)


def small_swin_of(model: bt.MultiTaskModel) -> nn.Module:
    swin = small_swin().double()
    swin.load_state_dict({name: value for name, value in model.backbone.frozen.state_dict().items()})
    return swin


@cache
def published() -> tuple[nn.Module, BackboneSpec]:
    """The backbone of the published models; nothing may change it."""
    backbone = timm.create_model("swin_tiny_patch4_window7_224", img_size=448, num_classes=0)
    return backbone, bt.trace_backbone(backbone, levels="after_merging")


def published_model(comb: Comb, extras: list[str]) -> bt.MultiTaskModel:
    backbone, spec = published()
    tasks = [bt.SemanticSegmentation("s", num_classes=21), bt.HumanParts("h"), bt.Saliency("l"), bt.Normals("n")]
    return bt.MultiTaskModel(backbone, tasks, adapter=comb, decoder=bt.HRNetDecoder(), extras=extras, spec=spec)


@pytest.mark.parametrize(
    ("rank", "total", "gmacs"), [(16, 4_953_146, 26.6), (32, 6_083_642, 28.1), (64, 8_344_634, 31.0)]
)
def test_published_counts_of_mtlora(rank: int, total: int, gmacs: float) -> None:
    extras = ["norms", "patch_embed", "relative_position", "patch_merging"]
    model = published_model(Comb(r=rank, lora_alpha=4.0 * rank, r_task=4, task_alpha=16.0), extras)
    counts = model.count_parameters()
    assert counts["adapters"] == 70_656 * rank + 276_480
    assert counts["adapters"] + counts["extras"] + counts["decoders"] == total
    assert abs(model.cost().macs / 1e9 + 3.98 - gmacs) < 0.1


@pytest.mark.parametrize(
    ("rank", "task_rank", "total"),
    [
        (4, 4, 2_573_114),
        pytest.param(*(8, 8, 3_148_346), marks=pytest.mark.slow),
        pytest.param(*(16, 16, 4_298_810), marks=pytest.mark.slow),
        (16, 4, 3_469_370),
        pytest.param(*(32, 4, 4_664_378), marks=pytest.mark.slow),
        (64, 4, 7_054_394),
    ],
)
def test_published_counts_of_mtlora_plus(rank: int, task_rank: int, total: int) -> None:
    """LoRA on the reductions too, which are frozen."""
    extras = ["norms", "patch_embed", "relative_position"]
    comb = Comb(r=rank, lora_alpha=4.0 * rank, r_task=task_rank, task_alpha=4.0 * task_rank, target_modules=PLUS)
    model = published_model(comb, extras)
    counts = model.count_parameters()
    assert counts["adapters"] == (70_656 + 4_032) * rank + 69_120 * task_rank
    assert counts["adapters"] + counts["extras"] + counts["decoders"] == total
    assert model.cost().parameters == counts["adapters"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"r_task": 0}, "r_task must be at least 1"),
        ({"r_task": 2.5}, "r_task must be a whole number"),
        ({"r_task": True}, "r_task must be a whole number"),
        ({"task_alpha": 0.0}, "task_alpha must be finite"),
        ({"task_alpha": "16"}, "task_alpha must be a number"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(bt.UserError, match=expected):
        Comb(**arguments)


def test_on_a_forked_tree_a_subset_and_an_added_task_give_the_same_outputs() -> None:
    model, x = comb_model(tree=FORKED), images()
    expected = model(x)
    torch.testing.assert_close(model(x, tasks=["b"])["b"], expected["b"], rtol=1e-12, atol=1e-12)
    grown = model.add_task(bt.Depth("d"), like="c", levels=2)
    for task, output in grown(x, tasks=list(TASKS)).items():
        assert torch.equal(output, expected[task])
    pruned = grown.remove_task("a")
    torch.testing.assert_close(pruned(x)["c"], expected["c"], rtol=1e-12, atol=1e-12)


def test_a_level_of_one_block_forks_before_its_streams() -> None:
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", pretrained=False, img_size=32)
    tree = bt.TaskTree([[("a",), ("b",)]] + [[("a",), ("b",)]] * 3)
    levels = [f"blocks.{index}" for index in range(4)]
    model = bt.MultiTaskModel(
        vit, [bt.Depth("a"), bt.Saliency("b")], tree, adapter=Comb(r=2, r_task=2), levels=levels, image_size=32
    )
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.1)
    model, x = model.double().eval(), images()
    together = model(x)
    for task, output in together.items():
        torch.testing.assert_close(model(x, tasks=[task])[task], output, rtol=1e-12, atol=1e-12)


def test_on_a_forked_tree_a_loss_reaches_its_path_and_its_stream_alone() -> None:
    model = comb_model(tree=FORKED)
    model(images())["b"].square().sum().backward()
    path = {node.key for node in FORKED.nodes() if "b" in node.tasks} | {f"{level}/b/stream" for level in range(4)}
    reached = {k for k, node in model.backbone.adapters.items() if any(p.grad is not None for p in node.parameters())}
    assert reached == path
    assert model.cost().parameters == model.count_parameters()["adapters"]


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0"])
def test_backbones_without_such_blocks_are_refused(name: str) -> None:
    backbone = timm.create_model(name, pretrained=False)
    with pytest.raises(bt.UserError, match="Comb needs"):
        bt.MultiTaskModel(backbone, [bt.Depth("depth")], adapter=Comb(), image_size=64)


def test_dropout_acts_on_the_streams_in_training_alone() -> None:
    model = small_model(tree=None, adapter=Comb(r=2, lora_dropout=0.5))
    for name, parameter in model.backbone.adapters.named_parameters():
        if "/stream" not in name:
            nn.init.zeros_(parameter)  # so that nothing else draws
    first, second = (model.train()(images())["a"] for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval()(images())["a"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_level_that_goes_on_after_its_last_block_is_refused() -> None:
    levels = ["layers.0", "layers.1", "layers.2", "layers.3:norm"]
    with pytest.raises(bt.UserError, match="ends at 'norm', after its last block"):
        small_model(tree=None, adapter=Comb(r=2), levels=levels)


def test_only_lora_makes_a_comb() -> None:
    assert Comb.like(bt.LoRA(r=8, lora_alpha=32.0)) == Comb(r=8, lora_alpha=32.0, r_task=4, task_alpha=16.0)
    with pytest.raises(bt.UserError, match="made of LoRA"):
        Comb.like(bt.Bottleneck())
    assert len(TASK_LAYERS) == 3
