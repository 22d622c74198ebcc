"""Stop at a loss or a gradient that is not finite, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from branchtune.batch import sample_names
from branchtune.errors import UserError


def check_finite(
    what: str,
    values: Mapping[str, Tensor],
    ids: Sequence[object],
    when: str,
    advice: str,
    error: type[UserError] = UserError,
) -> None:
    """Refuse NaN and infinity; one wait for the device.

    Args:
        what: "loss" or "gradient".
        values: per task a scalar, or `[B, ...]` with one row per sample.
        ids: names of the samples.
        when: such as "at step 7"; may be empty.
        advice: the way out.
        error: what is raised; `DivergedError` where the learning rate can be the reason.

    Raises:
        UserError: names the task and the samples, of rows the first one that is not finite.
    """
    if not values or bool(torch.stack([value.detach().isfinite().all() for value in values.values()]).all()):
        return
    name, value = next((name, value) for name, value in values.items() if not bool(value.isfinite().all()))
    when = f" {when}" if when else ""
    if value.ndim == 0:
        raise error(f"the {what} of task {name!r} became {value.item()}{when} ({sample_names(ids)}): {advice}")
    row = int((~value.isfinite()).flatten(1).any(dim=1).nonzero()[0])
    raise error(f"the {what} of task {name!r} is not finite on sample {ids[row]!r}{when}: {advice}")
