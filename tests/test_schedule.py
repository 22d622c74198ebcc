from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from branchtune.errors import UserError
from branchtune.training.schedule import Schedule

STEPS_PER_EPOCH = 10
TOTAL = 100


def factors(schedule: Schedule, total: int = TOTAL) -> list[float]:
    return [schedule.factor(step, STEPS_PER_EPOCH, total) for step in range(total + 1)]


def test_values_of_the_default_recipe() -> None:
    values = factors(Schedule(warmup_epochs=2.0, warmup_start=1e-3, min_factor=0.01))
    assert values[0] == 1e-3
    assert values[10] == pytest.approx((1e-3 + 1) / 2)
    assert values[20] == 1
    assert values[60] == pytest.approx((1 + 0.01) / 2)
    assert values[100] == 0.01


@given(
    epochs=st.floats(0, 10),
    start=st.floats(1e-6, 1),
    end=st.floats(0, 1),
    kind=st.sampled_from(["cosine", "constant"]),
)
def test_it_rises_to_one_then_never_rises_and_has_no_jump(epochs: float, start: float, end: float, kind: str) -> None:
    schedule = Schedule(warmup_epochs=epochs, warmup_start=start, min_factor=end, kind=kind)  # type: ignore[arg-type]
    values, warmup = factors(schedule), epochs * STEPS_PER_EPOCH
    assert all(0 <= value <= 1 for value in values)
    for step in range(TOTAL):
        change = values[step + 1] - values[step]
        if step + 1 <= warmup:
            assert change >= 0
        if step >= warmup:
            assert change <= 0
    if warmup <= TOTAL - 20:
        # No step is larger than the steepest part of either piece.
        steepest = max(1 / max(warmup, 1), 0.5 * math.pi / (TOTAL - warmup))
        assert max(abs(b - a) for a, b in itertools.pairwise(values)) <= steepest * 1.001
        assert values[-1] == (end if kind == "cosine" else 1)
        assert values[math.ceil(warmup)] == pytest.approx(1, abs=0.01)


def test_after_the_last_step_it_stays() -> None:
    assert Schedule(min_factor=0.2).factor(TOTAL + 7, STEPS_PER_EPOCH, TOTAL) == 0.2
    assert Schedule(kind="constant").factor(TOTAL + 7, STEPS_PER_EPOCH, TOTAL) == 1


def test_without_warmup_it_starts_at_one() -> None:
    assert factors(Schedule(warmup_epochs=0))[0] == 1


def test_a_warmup_as_long_as_training_is_allowed_and_a_longer_one_refused() -> None:
    assert factors(Schedule(warmup_epochs=10.0))[TOTAL - 1] < 1
    with pytest.raises(
        UserError, match=r"warm-up of 10.5 epochs \(105 steps\) is longer than the training \(100 steps\)"
    ):
        factors(Schedule(warmup_epochs=10.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"warmup_epochs": math.inf}, "warmup_epochs"),
        ({"warmup_start": 0.0}, "warmup_start"),
        ({"warmup_start": math.nan}, "warmup_start"),
        ({"min_factor": 1.5}, "min_factor"),
        ({"kind": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_bad_values(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule(**settings)  # type: ignore[arg-type]


def test_every_group_is_scaled_and_a_resumed_run_is_equal() -> None:
    schedule = Schedule(warmup_epochs=1.5)

    def start() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
        optimizer = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.1}])
        return optimizer, schedule.build(optimizer, STEPS_PER_EPOCH, TOTAL)

    def advance(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR, steps: int) -> list:
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        return rates

    whole = advance(*start(), TOTAL)
    assert whole == [[value, pytest.approx(0.1 * value)] for value in factors(schedule)[:-1]]
    optimizer, scheduler = start()
    first = advance(optimizer, scheduler, 37)
    saved = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], saved)
    saved.seek(0)
    states = torch.load(saved, weights_only=True)
    resumed = start()
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    assert first + advance(*resumed, TOTAL - 37) == whole
