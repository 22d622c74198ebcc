"""What a task is: a name, a loss, metrics, the direction of its headline metric, its output channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError
from branchtune.scalars import real, whole

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

RESERVED_NAMES = ("id", "image")
TargetKind = Literal["classes", "values", "depth", "normals", "image"]


class Task(ABC):
    """One task of a multi-task model; subclass it to add your own.

    A subclass sets `target_kind`, `headline` and `higher_is_better`, and writes `loss` and `metrics`; what a
    valid, a missing and an unlabelled target is follows from `target_kind`.

    ```python
    class Height(Task):
        target_kind, headline, higher_is_better = "values", "mae", False

        def loss(self, output, target):
            return masked_l1(output[:, 0], target, ~target.isnan())

        def metrics(self):
            # any torchmetrics.Metric that skips NaN targets
            return {"mae": MeanHeightError()}

    task = Height("height", out_channels=1)
    ```

    Args:
        name: the key of this task in the model's outputs and in the samples of a dataset. Letters, digits,
            `_` and `-`; not "image" or "id", which a sample uses for itself.
        out_channels: channels C of the raw output, `[B, C, H, W]` for a dense task and `[B, C]` for an
            image-level one.
        weight: factor w_t of this task's loss in the training objective `sum_t w_t L_t`.

    Attributes:
        target_kind: how the target behaves under resizing, flipping and zooming, and whether it is a map at all:
            "classes" int64 `[H, W]`, 255 ignored; "values" float `[H, W]`, "depth" float `[H, W]` metres and "normals"
            float `[3, H, W]`, NaN ignored; "image" one label per image.
        image_target: the label of an "image" task: "class" int64 scalar, -100 ignored, or "values" float `[C]`, NaN
            ignored.
        value_range: smallest and largest valid element of a target of "values".
        thin_lines: whether a target of "values" marks thin lines, which shrinking must not break.
        headline: key of `metrics()` that decides which of two models is better.
        higher_is_better: the direction of the headline.
    """

    target_kind: ClassVar[TargetKind] = "values"
    image_target: ClassVar[Literal["class", "values"]] = "class"
    value_range: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))
    thin_lines: ClassVar[bool] = False
    headline: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def __init__(self, name: str, out_channels: int, weight: float = 1.0) -> None:
        if not isinstance(name, str) or not name or name in RESERVED_NAMES:
            raise UserError(f"a task cannot be named {name!r}: a sample uses the keys {RESERVED_NAMES} for itself")
        if not name.replace("_", "a").replace("-", "a").isalnum() or not name.isascii():
            raise UserError(f"task name {name!r}: use letters, digits, '_' and '-' only, it names parameters and files")
        out_channels, weight = (
            whole(f"task {name!r}: out_channels", out_channels),
            real(f"task {name!r}: weight", weight),
        )
        if out_channels < 1:
            raise UserError(f"task {name!r}: out_channels must be at least 1, got {out_channels}")
        if not weight >= 0 or weight == float("inf"):
            raise UserError(f"task {name!r}: weight must be a finite number >= 0, got {weight}")
        self.name = name
        self.out_channels = out_channels
        self.weight = float(weight)

    @property
    def dense(self) -> bool:
        """Whether the output is a map at the input's resolution; otherwise one vector per image."""
        return self.target_kind != "image"

    def activate(self, raw: Tensor) -> Tensor:
        """Decoder output -> what the model returns, of the same shape; the identity unless overridden."""
        return raw

    def prediction(self, output: Tensor) -> Tensor:
        """What the model returns -> what it predicts, in the unit of the target: for pictures, files and pages.

        By default, by `target_kind`: "classes" gives the class with the largest score, in the smallest unsigned
        integer type, `[B, H, W]`; "values" and "depth" what the model returns, `[B, H, W]` where it has one channel;
        "normals" `[B, 3, H, W]`; "image" `[B, C]`, the probabilities of a class by softmax, or the values. Override it
        where this is not so, such as for logits of a probability: `return output[:, 0].sigmoid()`.

        Args:
            output: `[B, C, H, W]` or `[B, C]`. For classes and normals it may be a strip of a large image: each
                pixel counts by itself.
        """
        from branchtune.tasks.prediction import default_prediction

        return default_prediction(self, output)

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Scalar loss, a mean over the labelled elements of the batch.

        Args:
            output: what the model returns, `[B, C, H, W]` or `[B, C]`.
            target: the stacked targets, `[B, H, W]`, `[B, 3, H, W]`, `[B]` or `[B, C]` by `target_kind`.

        Called only when at least one element is labelled (see `labelled`).
        """

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Fresh streaming metrics by name, each with `update(output, target)` and a scalar `compute()`.

        They ignore unlabelled elements and samples themselves; `compute()` without any label is NaN. Where several
        numbers come from the same sums, `compute()` returns them by name, and these names replace the metric's. The
        headline is a metric of its own.
        """

    def final_metrics(self) -> dict[str, Metric]:
        """Further metrics that only a finished model is evaluated with, too slow for every epoch; none by default."""
        return {}

    def labelled(self, target: Tensor) -> Tensor:
        """Which samples carry any label: target `[B, ...]` -> bool `[B]`."""
        from branchtune.tasks import targets

        return targets.valid_elements(self, target).reshape(len(target), -1).any(dim=1)

    def missing_target(self, height: int, width: int) -> Tensor:
        """The target of a sample without this label (everything ignored), shaped and typed as a real one."""
        from branchtune.tasks import targets

        return targets.ignored_target(self, height, width)

    def check_target(self, target: Tensor, height: int, width: int) -> None:
        """Raise a `UserError` that names the shape, dtype or value when `target` (one sample) is not valid.

        Args:
            target: the target of one sample, without a batch dimension.
            height: of the sample's image in pixels; an image-level target has no use for it.
            width: likewise.
        """
        from branchtune.tasks import targets

        targets.check_target(self, target, height, width)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"
