"""Losses against values worked out by hand, and what ignored elements do to their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from branchtune.tasks.classification import ImageClassification
from branchtune.tasks.depth import Depth
from branchtune.tasks.edges import Edges
from branchtune.tasks.normals import Normals
from branchtune.tasks.parts import HumanParts
from branchtune.tasks.regression import ImageRegression
from branchtune.tasks.saliency import Saliency
from branchtune.tasks.semseg import SemanticSegmentation
from branchtune.tasks.task import Task

NAN = float("nan")
LOG3 = math.log(3.0)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# name: task, output, target, loss worked out by hand, mask of ignored output elements
CASES = {
    # -log softmax: equal logits give log 2; logits (0, log 3) give log 4 for class 0
    "semseg": (
        SemanticSegmentation("semseg", 2),
        torch.tensor([[[[0.0, 0.0, 7.0]], [[0.0, LOG3, -7.0]]]]),
        torch.tensor([[[1, 0, 255]]]),
        (math.log(2) + math.log(4)) / 2,
        torch.tensor([[[[False, False, True]]]]).expand(1, 2, 1, 3),
    ),
    "parts": (
        HumanParts("parts", 3),
        torch.zeros(1, 3, 1, 2),
        torch.tensor([[[2, 255]]]),
        LOG3,
        torch.tensor([[[[False, True]]]]).expand(1, 3, 1, 2),
    ),
    # two negatives and one positive: w = 2/3
    "saliency": (
        Saliency("saliency"),
        torch.tensor([[[[1.0, 2.0, -1.0, 5.0]]]]),
        torch.tensor([[[0.5, 0.49, 0.0, NAN]]]),
        (2 / 3 * softplus(-1.0) + 1 / 3 * softplus(2.0) + 1 / 3 * softplus(-1.0)) / 3,
        torch.tensor([[[[False, False, False, True]]]]),
    ),
    "edges": (
        Edges("edge"),
        torch.tensor([[[[1.0, 2.0, 5.0]]]]),
        torch.tensor([[[1.0, 0.0, NAN]]]),
        (0.95 * softplus(-1.0) + 0.05 * softplus(2.0)) / 2,
        torch.tensor([[[[False, False, True]]]]),
    ),
    "depth": (
        Depth("depth"),
        torch.tensor([[[[1.0, 5.0, 9.0]]]]),
        torch.tensor([[[2.5, 4.5, NAN]]]),
        1.0,
        torch.tensor([[[[False, False, True]]]]),
    ),
    # the mean is over elements: three channels of one pixel
    "normals": (
        Normals("normals"),
        torch.tensor([[[[0.6, 1.0]], [[0.0, 0.0]], [[-0.8, 0.0]]]]),
        torch.tensor([[[[0.0, NAN]], [[0.0, NAN]], [[-1.0, NAN]]]]),
        (0.6 + 0.0 + 0.2) / 3,
        torch.tensor([[[[False, True]]]]).expand(1, 3, 1, 2),
    ),
    "classification": (
        ImageClassification("scene", 2),
        torch.tensor([[0.0, LOG3], [4.0, 4.5]]),
        torch.tensor([0, -100]),
        math.log(4),
        torch.tensor([[False, False], [True, True]]),
    ),
    # smooth L1: d^2 / 2 below 1, |d| - 1/2 above
    "regression": (
        ImageRegression("pose", 3),
        torch.tensor([[0.5, 4.0, 3.0]]),
        torch.tensor([[0.0, 1.0, NAN]]),
        (0.125 + 2.5) / 2,
        torch.tensor([[False, False, True]]),
    ),
}
cases = pytest.mark.parametrize(("task", "output", "target", "expected", "ignored"), CASES.values(), ids=CASES.keys())


def to_double(target: Tensor) -> Tensor:
    return target.double() if target.is_floating_point() else target


@cases
def test_known_answer(task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor) -> None:
    loss = task.loss(output.double(), to_double(target))
    assert loss.dtype == torch.float64
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # the constants above went through float32


@cases
def test_only_labelled_elements_have_a_gradient(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    output = output.clone().requires_grad_()
    task.loss(output, target).backward()
    assert output.grad is not None
    assert (output.grad[ignored] == 0).all()
    assert output.grad.isfinite().all()
    assert (output.grad[~ignored] != 0).any()


@cases
def test_gradient_is_the_derivative(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    shifted = (output.double() + 0.05).requires_grad_()  # off the kinks of |x|
    assert torch.autograd.gradcheck(lambda x: task.loss(x, to_double(target)), (shifted,))


@cases
def test_what_an_ignored_element_predicts_does_not_matter(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    other = torch.where(ignored, torch.full_like(output, -123.0), output)
    assert torch.equal(task.loss(output, target), task.loss(other, target))


@cases
def test_without_any_label_loss_and_gradient_are_zero(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    missing = task.missing_target(*output.shape[-2:])
    output = output.clone().requires_grad_()
    loss = task.loss(output, torch.stack([missing] * len(output)))
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert (output.grad == 0).all()


@cases
def test_half_precision_outputs_are_summed_in_float32(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    raw = output.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(task.activate(raw), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, task.loss(task.activate(raw.float()), target))
    loss.backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@cases
def test_per_sample_gradients_through_vmap(
    task: Task, output: Tensor, target: Tensor, expected: float, ignored: Tensor
) -> None:
    def one(sample: Tensor, label: Tensor) -> Tensor:
        return task.loss(sample[None], label[None])

    outputs, targets = torch.cat([output, output + 0.3]), torch.cat([target, target])
    gradients = torch.func.vmap(torch.func.grad(one))(outputs, targets)
    for gradient, sample, label in zip(gradients, outputs, targets, strict=True):
        torch.testing.assert_close(gradient, torch.func.grad(one)(sample, label))


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_balanced_loss_of_a_single_class_is_finite(value: float) -> None:
    output = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    Saliency("saliency").loss(output, torch.full((1, 2, 2), value)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_saturated_logits_keep_a_finite_loss() -> None:
    output = torch.tensor([[[[200.0, -200.0]]]])
    assert Edges("edge").loss(output, torch.tensor([[[0.0, 1.0]]])).item() == pytest.approx(100.0)


def test_normals_are_divided_by_their_length() -> None:
    raw = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = Normals("normals").activate(raw)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2, 4, 5, dtype=torch.float64))
    torch.testing.assert_close(unit * raw.norm(dim=1, keepdim=True), raw)
    assert Normals("normals").activate(raw.bfloat16()).dtype == torch.float32


def test_normals_are_safe_at_zero() -> None:
    raw = torch.zeros(1, 3, 1, 1, requires_grad=True)
    unit = Normals("normals").activate(raw)
    assert (unit == 0).all()
    unit.sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
