"""The interface of a task optimiser: how the losses of T tasks become one update."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError

if TYPE_CHECKING:
    import torch

    from branchtune.model import MultiTaskModel


class TaskOptimizer(ABC):
    """Configuration of an optimiser; subclass it as a frozen dataclass with the three learning rates as fields.

    Keys of one name have one default in all subclasses: a configuration that names another class keeps the values of
    the default class for the keys that both have.

    Attributes:
        per_task_gradients: whether a step needs one gradient per task. The optimiser then has `parameters()` and
            `set_task_gradients(...)`, as `AdaTaskOptimizer` does, and training switches to manual optimisation.
        lr: peak learning rate of the adapters.
        decoder_lr: of the decoders; None: `lr`.
        backbone_lr: of the backbone's own weights that train: extras, or all under full fine-tuning; None: `lr`.
    """

    per_task_gradients: ClassVar[bool] = False
    lr: float
    decoder_lr: float | None
    backbone_lr: float | None

    @abstractmethod
    def build(self, model: MultiTaskModel) -> torch.optim.Optimizer:
        """The optimiser of everything that trains in `model`."""

    def diagnostics(self, optimizer: Any) -> dict[str, float]:
        """Numbers that the loggers get after every epoch, from what `build` returned; none by default."""
        return {}


def parameter_groups(
    model: MultiTaskModel, lr: float, decoder_lr: float | None, backbone_lr: float | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters by owner and by whether weight decay applies; each is in exactly one group.

    As in the published recipe (arXiv 2403.20320) nothing one-dimensional, no bias and no relative-position table
    decays, nor what the backbone itself exempts (timm's `no_weight_decay()`).

    Args:
        model: whose parameters.
        lr: of adapters.
        decoder_lr: of decoders; None: `lr`.
        backbone_lr: of extras, and of a backbone that trains as a whole; None: `lr`.
        weight_decay: of the parameters that decay.

    Returns:
        Non-empty groups with keys `name` (the owner, or `owner/no_decay`), `params`, `lr` and `weight_decay`.

    Raises:
        UserError: nothing in the model trains, or a parameter that the plan freezes would.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps, whose name it puts before all others
    own = lr if backbone_lr is None else backbone_lr
    rates = {
        "adapters": lr,
        "extras": own,
        "decoders": lr if decoder_lr is None else decoder_lr,
        "backbone": own,
    }
    exempt: set[str] = getattr(model.backbone.frozen, "no_weight_decay", set)()
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, local = model.owner_of(name)
        if owner == "frozen":
            raise UserError(
                f"{local!r} of the backbone is frozen by the plan but requires a gradient: name it in extras, use "
                "train_backbone=True, or undo its requires_grad_(True)"
            )
        if not model.trains(name):
            raise UserError(
                f"{name!r} is at rest by the plan, which trains {', '.join(model.train_tasks)} only, but requires a "
                "gradient: undo its requires_grad_(True), or take model.training_only(None), which trains all tasks"
            )
        decays = parameter.ndim > 1 and local not in exempt and not _is_bias_or_position(local)
        group = owner if decays else f"{owner}/no_decay"
        decay = weight_decay if decays else 0.0
        empty: dict[str, Any] = {"name": group, "params": [], "lr": rates[owner], "weight_decay": decay}
        groups.setdefault(group, empty)["params"].append(parameter)
    if not groups:
        raise UserError("nothing in the model trains: it has no adapter, no extra and no decoder with parameters")
    return list(groups.values())


def check_adam(settings: Any) -> None:
    """Refuse learning rates, betas, eps or weight decay of an Adam-like task optimiser that make no sense.

    Raises:
        UserError: names the class, the key and its range.
    """
    kind = type(settings).__name__
    for key in ("lr", "decoder_lr", "backbone_lr"):
        rate = getattr(settings, key)
        if not (rate is None and key != "lr") and not 0 < rate < math.inf:
            raise UserError(f"{kind} {key} must be a finite number above 0, got {rate}")
    if len(settings.betas) != 2 or not all(0 <= beta < 1 for beta in settings.betas):
        raise UserError(f"{kind} betas must be two numbers in [0, 1), got {settings.betas}")
    if not 0 < settings.eps < math.inf:
        raise UserError(f"{kind} eps must be a finite number above 0, got {settings.eps}")
    if not 0 <= settings.weight_decay < math.inf:
        raise UserError(f"{kind} weight_decay must be a finite number of at least 0, got {settings.weight_decay}")


def _is_bias_or_position(name: str) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf == "bias" or "relative_position" in leaf or "rel_pos" in leaf
