from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.training.task_gradients import accumulate, clip_task_gradients, task_gradients
from small_model import small_model


def squares(model: bt.MultiTaskModel, images: Tensor) -> dict[str, Tensor]:
    return {task: output.square().mean() for task, output in model(images).items()}


def trained(model: bt.MultiTaskModel) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"extras": ["norms", "relative_position", "patch_merging"]},
        {"adapter": bt.Bottleneck()},
        {"adapter": bt.LoRA(r=2, target_modules=".*downsample.*|.*fc1")},
        {"adapter": None, "tree": None},
        {"adapter": None, "tree": None, "train_backbone": True},
    ],
)
def test_each_task_gets_the_gradient_of_its_own_path_and_none_elsewhere(arguments: dict[str, object]) -> None:
    """From one folded pass of all tasks; off its path a gradient is None, not zeros."""
    model = small_model(**arguments)
    parameters = list(trained(model).values())
    gradients = task_gradients(squares(model, images()), parameters)
    assert list(gradients) == list(model.tasks)
    for task in model.tasks:
        alone = model(images(), [task])[task].square().mean()
        expected = torch.autograd.grad(alone, parameters, allow_unused=True)
        for got, value in zip(gradients[task], expected, strict=True):
            assert (got is None) == (value is None)
            if got is not None:
                torch.testing.assert_close(got, value, rtol=1e-9, atol=1e-12)


def test_passes_over_one_graph_do_not_disturb_each_other() -> None:
    """The second pass reaches another branch than the first; a third, through both, reaches both."""
    model = small_model()
    losses = squares(model, images())
    leaves = {
        task: next(model.backbone.node_adapters(3, model.tree.group_of(task, 3)).parameters()) for task in ("a", "c")
    }
    for task, leaf in leaves.items():
        other = leaves["c" if task == "a" else "a"]
        losses[task].backward(retain_graph=True)
        assert leaf.grad is not None
        assert other.grad is None
        leaf.grad = None
    (losses["a"] + losses["c"]).backward()
    assert all(leaf.grad is not None for leaf in leaves.values())


def test_the_last_backward_frees_the_graph() -> None:
    weight = nn.Parameter(torch.ones(2))
    losses = {"a": weight.exp().sum(), "b": (weight.exp() * 2).sum()}
    task_gradients(losses, [weight])
    with pytest.raises(RuntimeError, match="second time"):
        losses["b"].backward()


def test_a_loss_without_a_gradient_leaves_its_task_out_and_the_others_their_graph() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    hidden = weight.exp()
    losses = {"a": hidden * 1, "b": hidden * 2, "constant": torch.tensor(1.0)}
    gradients = task_gradients(losses, [weight])
    assert list(gradients) == ["a", "b"]
    assert task_gradients({}, [weight]) == {}


def test_clipping_is_that_of_the_summed_loss() -> None:
    model = small_model()
    parameters = list(trained(model).values())
    gradients = task_gradients(squares(model, images()), parameters)
    before = {task: list(values) for task, values in gradients.items()}
    torch.stack(list(squares(model, images()).values())).sum().backward()
    expected_norm = float(nn.utils.get_total_norm([p.grad for p in parameters]))
    limit = 0.3 * expected_norm
    nn.utils.clip_grad_norm_(parameters, limit)
    assert clip_task_gradients(gradients, limit) == pytest.approx(expected_norm, rel=1e-10)
    for index, parameter in enumerate(parameters):
        column = [values[index] for values in gradients.values() if values[index] is not None]
        torch.testing.assert_close(sum(column), parameter.grad, rtol=1e-9, atol=1e-12)
    for task, values in gradients.items():
        for old, new in zip(before[task], values, strict=True):
            assert (old is None) == (new is None)
            if old is not None:
                torch.testing.assert_close(new, 0.3 * old, rtol=1e-5, atol=1e-12)


def test_opposite_gradients_have_a_small_sum_and_are_not_clipped() -> None:
    gradients = {"a": [torch.tensor([100.0])], "b": [torch.tensor([-100.0])], "c": [None]}
    assert clip_task_gradients(gradients, 1.0) == 0
    assert gradients["a"][0] == 100
    assert clip_task_gradients({}, 1.0) == 0


def test_accumulating_half_batches_gives_the_whole_batch() -> None:
    model = small_model()
    parameters = list(trained(model).values())
    whole = task_gradients(squares(model, images(4)), parameters)
    total: dict[str, list[Tensor | None]] = {}
    for half in images(4).chunk(2):
        losses = {task: loss / 2 for task, loss in squares(model, half).items()}
        accumulate(total, task_gradients(losses, parameters))
    for task, values in whole.items():
        for expected, got in zip(values, total[task], strict=True):
            assert (expected is None) == (got is None)
            if expected is not None:
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_a_task_may_join_late_or_miss_a_batch() -> None:
    total: dict[str, list[Tensor | None]] = {}
    accumulate(total, {"a": [torch.tensor(1.0), None]})
    accumulate(total, {"b": [None, torch.tensor(5.0)]})
    accumulate(total, {"a": [torch.tensor(2.0), torch.tensor(3.0)]})
    assert total == {"a": [3.0, 3.0], "b": [None, 5.0]}


def test_one_tensor_handed_out_for_two_parameters_is_not_changed_twice() -> None:
    a, b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    gradients = task_gradients({"t": (a + b).sum()}, [a, b])
    total: dict[str, list[Tensor | None]] = {}
    accumulate(total, gradients)
    accumulate(total, gradients)
    assert clip_task_gradients(total, 1.0) == pytest.approx(2 * 8**0.5)
    for value in total["t"]:
        torch.testing.assert_close(value, torch.full((4,), 8**-0.5), rtol=1e-5, atol=0)
    assert all(value.eq(1).all() for value in gradients["t"] if value is not None)
