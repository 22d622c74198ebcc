from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn

import branchtune as bt
from branchtune.errors import UserError
from branchtune.training.adatask import AdaTask
from branchtune.training.task_optimizer import TaskOptimizer, parameter_groups
from branchtune.training.weighted_sum import WeightedSum
from small_model import small_model

EVERYTHING = ["norms", "patch_embed", "relative_position", "patch_merging"]
CASES: dict[str, dict[str, object]] = {
    "adapters": {},
    "extras": {"extras": EVERYTHING},
    "bottleneck": {"adapter": bt.Bottleneck()},
    "decoders": {"adapter": None, "tree": None},
    "backbone": {"adapter": None, "tree": None, "train_backbone": True},
}


def groups_of(model: bt.MultiTaskModel) -> dict[str, dict]:
    groups = parameter_groups(model, 1.0, 2.0, 3.0, 0.1)
    assert len({group["name"] for group in groups}) == len(groups)
    return {group["name"]: group for group in groups}


def names_in(model: bt.MultiTaskModel, group: dict) -> set[str]:
    members = set(group["params"])
    return {name for name, parameter in model.named_parameters() if parameter in members}


@pytest.mark.parametrize("case", CASES)
def test_every_trainable_parameter_is_in_exactly_one_group(case: str) -> None:
    model = small_model(**CASES[case])
    groups = groups_of(model)
    members = Counter(id(parameter) for group in groups.values() for parameter in group["params"])
    assert set(members.values()) == {1}
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(group["params"] for group in groups.values())
    counts = model.count_parameters()
    for owner in ("adapters", "extras", "decoders", "backbone"):
        found = [groups[name] for name in (owner, f"{owner}/no_decay") if name in groups]
        assert sum(p.numel() for group in found for p in group["params"]) == counts[owner]


@pytest.mark.parametrize("optimizer", [WeightedSum(), AdaTask()])
def test_a_compiled_model_has_the_groups_of_the_model_itself(optimizer: TaskOptimizer) -> None:
    model = small_model(extras=["norms"])
    expected, found = (optimizer.build(one).param_groups for one in (model, torch.compile(model)))  # type: ignore[arg-type]
    assert [group["name"] for group in found] == [group["name"] for group in expected]
    assert all(
        a is b for f, e in zip(found, expected, strict=True) for a, b in zip(f["params"], e["params"], strict=True)
    )


def test_groups_carry_the_rate_of_their_owner_and_decay_only_where_it_applies() -> None:
    rates = {"adapters": 1.0, "extras": 3.0, "decoders": 2.0, "backbone": 3.0}
    for case in CASES.values():
        for name, group in groups_of(small_model(**case)).items():
            owner, _, rest = name.partition("/")
            assert group["lr"] == rates[owner]
            assert group["weight_decay"] == (0.0 if rest == "no_decay" else 0.1)


def test_rates_left_out_are_those_of_the_adapters() -> None:
    for case in CASES.values():
        for group in parameter_groups(small_model(**case), 0.5, None, None, 0.0):
            assert group["lr"] == 0.5


def test_what_does_not_decay() -> None:
    model = small_model(extras=EVERYTHING)
    groups = groups_of(model)
    assert "adapters/no_decay" not in groups
    spared = names_in(model, groups["extras/no_decay"])
    assert {n for n in spared if "relative_position_bias_table" in n} == {
        f"backbone.frozen.layers.{i}.blocks.0.attn.relative_position_bias_table" for i in range(4)
    }
    assert "backbone.frozen.patch_embed.proj.bias" in spared
    parameters = dict(model.named_parameters())
    for name in names_in(model, groups["extras"]) | names_in(model, groups["decoders"]):
        assert parameters[name].ndim > 1
        assert not name.endswith("bias")
    assert all(parameters[name].ndim <= 1 for name in spared if "relative" not in name)


class Positions(nn.Module):
    """A backbone with a relative-position table, which says what else must not decay, as timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.place = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.relative_position_table = nn.Parameter(torch.zeros(8, 8))
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def no_weight_decay(self) -> set[str]:
        return {"place"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(self.stem(x) + self.place + self.relative_position_table).relu())


def test_positions_and_what_the_backbone_exempts_do_not_decay() -> None:
    model = bt.MultiTaskModel(
        Positions(), [bt.Depth("depth")], levels=["one", "two"], image_size=32, train_backbone=True
    )
    groups = groups_of(model)
    local = {key: {n.removeprefix("backbone.frozen.") for n in names_in(model, groups[key])} for key in groups}
    assert local["backbone"] == {"stem.weight", "one.weight", "two.weight"}
    assert local["backbone/no_decay"] == {"place", "relative_position_table", "stem.bias", "one.bias", "two.bias"}


def test_a_model_in_which_nothing_trains_is_refused() -> None:
    model = small_model().requires_grad_(False)
    with pytest.raises(UserError, match="nothing in the model trains"):
        parameter_groups(model, 1.0, None, None, 0.0)


def test_it_is_adamw_on_the_summed_loss() -> None:
    settings = WeightedSum(lr=0.01, decoder_lr=0.02, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6)
    model, twin = small_model(), small_model()
    ours = settings.build(model)
    assert isinstance(ours, torch.optim.AdamW)
    adapters = list(twin.backbone.adapters.parameters())
    heads = list(twin.decoders.parameters())
    plain = torch.optim.AdamW(
        [
            {"params": adapters, "lr": 0.01, "weight_decay": 0.1},
            {"params": [p for p in heads if p.ndim > 1], "lr": 0.02, "weight_decay": 0.1},
            {"params": [p for p in heads if p.ndim <= 1], "lr": 0.02, "weight_decay": 0.0},
        ],
        betas=(0.8, 0.9),
        eps=1e-6,
    )
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    for network, optimizer in ((model, ours), (twin, plain)):
        for _ in range(3):
            optimizer.zero_grad()
            sum(output.square().mean() for output in network(images).values()).backward()
            optimizer.step()
    for (name, ours_value), twin_value in zip(model.named_parameters(), twin.parameters(), strict=True):
        # Not to the bit: on a CPU ours is torch's fused kernel, which rounds elsewhere.
        assert (ours_value - twin_value).abs().max() <= 1e-10 * twin_value.abs().max(), name


BAD = [
    ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
    ({"lr": math.nan}, "lr"),
    ({"decoder_lr": -1.0}, "decoder_lr"),
    ({"backbone_lr": math.inf}, "backbone_lr"),
    ({"weight_decay": -0.1}, "weight_decay"),
    ({"betas": (0.9, 1.0)}, "betas"),
    ({"betas": (0.9,)}, "betas"),
    ({"eps": 0.0}, "eps"),
]


@pytest.mark.parametrize("kind", [WeightedSum, AdaTask])
@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_values(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"{kind.__name__} {message}"):
        kind(**settings)


def test_keys_of_one_name_have_one_default() -> None:
    defaults: dict[str, object] = {}
    for kind in (WeightedSum, AdaTask):
        for field in dataclasses.fields(kind):
            assert defaults.setdefault(field.name, field.default) == field.default


def test_an_optimizer_of_ones_own() -> None:
    @dataclasses.dataclass(frozen=True)
    class Plain(TaskOptimizer):
        lr: float = 0.1
        decoder_lr: float | None = None
        backbone_lr: float | None = None

        def build(self, model: bt.MultiTaskModel) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameter_groups(model, self.lr, self.decoder_lr, self.backbone_lr, 0.0))

    assert not Plain.per_task_gradients
    assert {group["lr"] for group in Plain().build(small_model()).param_groups} == {0.1}


def test_the_configuration_classes_need_no_torch() -> None:
    modules = ["adatask", "schedule", "task_optimizer", "weighted_sum"]
    imports = "; ".join(f"import branchtune.training.{name}" for name in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
