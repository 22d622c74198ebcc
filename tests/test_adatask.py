from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from branchtune.errors import UserError
from branchtune.training.adatask import AdaTask
from branchtune.training.adatask_optimizer import AdaTaskOptimizer
from branchtune.training.task_gradients import task_gradients
from small_model import small_model

LR = 0.01
Gradients = dict[str, list[Tensor | None]]


def scalar(value: float = 0.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=torch.float64))


def constant(**gradients: float | None) -> Gradients:
    return {t: [None if g is None else torch.tensor([g], dtype=torch.float64)] for t, g in gradients.items()}


def weights(seed: int = 0, shapes: Sequence[tuple[int, ...]] = ((3,), (2, 4))) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def random_gradients(step: int, tasks: str = "ab", missing: float = 0.0) -> Gradients:
    generator = torch.Generator().manual_seed(1000 + step)
    made: Gradients = {}
    for scale, task in enumerate(tasks, start=1):
        values = [scale * torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in weights()]
        keep = torch.rand(len(values), generator=generator) >= missing
        made[task] = [value if kept else None for value, kept in zip(values, keep, strict=True)]
    return made


def run(optimizer: AdaTaskOptimizer, steps: range, gradients: Callable[[int], Gradients]) -> None:
    for step in steps:
        optimizer.set_task_gradients(gradients(step))
        optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_one_task_is_torchs_adam(weight_decay: float) -> None:
    ours, theirs = weights(), weights()
    adatask = AdaTaskOptimizer(ours, lr=LR, betas=(0.8, 0.95), weight_decay=weight_decay)
    adam = torch.optim.AdamW(theirs, lr=LR, betas=(0.8, 0.95), weight_decay=weight_decay)
    for step in range(50):
        gradients = random_gradients(step, "a", missing=0.3)
        for parameter, gradient in zip(theirs, gradients["a"], strict=True):
            parameter.grad = gradient
        adam.step()
        run(adatask, range(1), lambda _, g=gradients: g)  # type: ignore[misc]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_opposite_constant_gradients_cancel_whatever_their_size() -> None:
    adam = scalar()
    plain = torch.optim.Adam([adam], lr=LR)
    shared = scalar()
    optimizer = AdaTaskOptimizer([shared], lr=LR)
    for step in range(1, 4):
        run(optimizer, range(1), lambda _: constant(a=100.0, b=-1.0))
        adam.grad = torch.full_like(adam, 99.0)
        plain.step()
        assert adam.item() == pytest.approx(-LR * step, rel=1e-6)
        assert abs(shared.item()) < 1e-9
    assert optimizer.dominance() == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-7)


def test_agreeing_constant_gradients_move_one_step_per_task() -> None:
    shared = scalar()
    optimizer = AdaTaskOptimizer([shared], lr=LR)
    for step in range(1, 4):
        run(optimizer, range(1), lambda _: constant(a=100.0, b=1.0))
        assert shared.item() == pytest.approx(-2 * LR * step, rel=1e-7)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_rescaling_one_loss_changes_nothing(factor: float) -> None:
    def rescaled(step: int) -> Gradients:
        gradients = random_gradients(step)
        return {**gradients, "b": [factor * g for g in gradients["b"] if g is not None]}

    plain, scaled = weights(), weights()
    first, second = (AdaTaskOptimizer(parameters, lr=LR, eps=1e-14) for parameters in (plain, scaled))
    run(first, range(30), random_gradients)
    run(second, range(30), rescaled)
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    assert first.dominance() == pytest.approx(second.dominance(), rel=1e-9)


def test_the_update_is_the_sum_of_one_adam_per_task_whatever_is_missing() -> None:
    """Adam's update does not depend on the weights, so each task's can be run apart from the others'."""
    tasks, start, shared = "abc", weights(), weights()
    run(AdaTaskOptimizer(shared, lr=LR), range(40), lambda step: random_gradients(step, tasks, missing=0.4))
    moved = [torch.zeros_like(p) for p in start]
    for task in tasks:
        alone = weights()
        adam = torch.optim.Adam(alone, lr=LR)
        for step in range(40):
            for parameter, gradient in zip(alone, random_gradients(step, tasks, missing=0.4)[task], strict=True):
                parameter.grad = gradient
            adam.step()
        for total, before, after in zip(moved, start, alone, strict=True):
            total += after.detach() - before.detach()
    for before, after, total in zip(start, shared, moved, strict=True):
        torch.testing.assert_close(after.detach(), before.detach() + total, rtol=0, atol=1e-12)


def test_a_task_that_joins_late_starts_with_a_step_of_lr() -> None:
    shared = scalar()
    optimizer = AdaTaskOptimizer([shared], lr=LR)
    run(optimizer, range(200), lambda step: constant(a=1.0 if step % 2 else -1.0))
    quiet = shared.item()
    run(optimizer, range(1), lambda _: constant(b=5.0))
    assert shared.item() - quiet == pytest.approx(-LR, rel=1e-7)


def test_on_a_model_decoders_follow_adam_and_moments_exist_only_along_a_tasks_path() -> None:
    model, twin = small_model(), small_model()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = AdaTask(lr=1e-3, weight_decay=0.0).build(model)
    losses = {task: output.square().mean() for task, output in model(images).items()}
    optimizer.set_task_gradients(task_gradients(losses, optimizer.parameters()))
    optimizer.step()
    plain = torch.optim.Adam([p for p in twin.parameters() if p.requires_grad], lr=1e-3)
    sum(output.square().mean() for output in twin(images).values()).backward()
    plain.step()
    for a, b in zip(model.decoders.parameters(), twin.decoders.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    for task in model.tasks:
        alone = model(images, [task])[task].sum()
        path = torch.autograd.grad(alone, optimizer.parameters(), allow_unused=True)
        for parameter, gradient in zip(optimizer.parameters(), path, strict=True):
            assert (task in optimizer.state[parameter]["tasks"]) == (gradient is not None)


def test_decay_waits_for_parameters_that_no_task_reaches() -> None:
    reached, idle = scalar(1.0), scalar(1.0)
    optimizer = AdaTaskOptimizer([reached, idle], lr=LR, weight_decay=0.5)
    zero = torch.zeros(1, dtype=torch.float64)
    optimizer.set_task_gradients({"a": [zero, None], "b": [zero, None]})
    optimizer.step()
    assert reached.item() == 1 - LR * 0.5
    assert idle.item() == 1
    run(optimizer, range(1), lambda _: {})
    assert reached.item() == 1 - LR * 0.5


def test_dominance_follows_what_moves_the_shared_parameters() -> None:
    shared, own = scalar(), scalar()
    optimizer = AdaTaskOptimizer([shared, own], lr=LR)
    assert optimizer.dominance() == {}
    steady, noisy = constant(a=1.0)["a"], [torch.ones(1, dtype=torch.float64), None]
    for step in range(100):
        sign = 1 if step % 2 else -1
        optimizer.set_task_gradients({"a": steady * 2, "b": [sign * g if g is not None else None for g in noisy]})
        optimizer.step()
    shares = optimizer.dominance()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["a"] > 0.9
    assert shares == optimizer.dominance([shared])
    assert optimizer.dominance([own]) == {"a": 1.0}


def test_a_task_that_is_gone_loses_its_share() -> None:
    optimizer = AdaTaskOptimizer([scalar()], lr=LR, betas=(0.9, 0.99))
    run(optimizer, range(50), lambda _: constant(a=1.0, b=1.0))
    run(optimizer, range(500), lambda _: constant(a=1.0))
    assert optimizer.dominance()["b"] < 0.01


def test_a_resumed_run_is_equal() -> None:
    def gradients(step: int) -> Gradients:
        return random_gradients(step, "abc", missing=0.3)

    def start() -> tuple[list[nn.Parameter], AdaTaskOptimizer]:
        parameters = weights()
        return parameters, AdaTaskOptimizer([{"params": [p], "name": str(i)} for i, p in enumerate(parameters)], lr=LR)

    whole, optimizer = start()
    run(optimizer, range(20), gradients)
    parameters, first = start()
    run(first, range(9), gradients)
    saved = io.BytesIO()
    torch.save([parameters, first.state_dict()], saved)
    saved.seek(0)
    values, state = torch.load(saved, weights_only=True)
    resumed, second = start()
    with torch.no_grad():
        for parameter, value in zip(resumed, values, strict=True):
            parameter.copy_(value)
    second.load_state_dict(state)
    run(second, range(9, 20), gradients)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)
    assert second.dominance() == optimizer.dominance()


def test_the_order_of_the_tasks_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1000, generator=generator)
    gradients = {task: [torch.randn(1000, generator=generator)] for task in "abc"}
    one, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    run(AdaTaskOptimizer([one]), range(5), lambda _: gradients)
    run(AdaTaskOptimizer([other]), range(5), lambda _: dict(reversed(gradients.items())))
    assert torch.equal(one, other)


def test_gradients_are_consumed_left_unchanged_and_may_come_from_the_closure() -> None:
    shared = scalar()
    optimizer = AdaTaskOptimizer([shared], lr=LR)
    gradients = constant(a=3.0, b=None)

    def closure() -> float:
        optimizer.set_task_gradients(gradients)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert gradients == constant(a=3.0, b=None)
    with pytest.raises(UserError, match="call set_task_gradients"):
        optimizer.step()


def test_gradients_that_do_not_fit_are_refused() -> None:
    optimizer = AdaTaskOptimizer(weights())
    with pytest.raises(UserError, match="task 'a' has 1 gradients for 2 parameters"):
        optimizer.set_task_gradients({"a": [None]})
    with pytest.raises(UserError, match=r"gradient 1 of task 'a' has shape \(3,\), its parameter has \(2, 4\)"):
        optimizer.set_task_gradients({"a": [None, torch.zeros(3)]})


def test_it_asks_for_a_gradient_per_task() -> None:
    assert AdaTask.per_task_gradients
    assert isinstance(AdaTask().build(small_model()), AdaTaskOptimizer)
