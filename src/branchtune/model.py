"""`MultiTaskModel`: backbone, tree, adapters and decoders; images -> one output per task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.check import check_module, placement
from branchtune.backbone.clone import keep_frozen_statistics
from branchtune.backbone.spec import BackboneSpec
from branchtune.backbone.trace import trace_backbone
from branchtune.branching import BranchedBackbone
from branchtune.cost import TreeCost, tree_cost
from branchtune.decoders.decoder import Decoder
from branchtune.decoders.light import LightDecoder
from branchtune.decoders.pooled import PooledHead
from branchtune.decoding import decode
from branchtune.errors import UserError, check_instance
from branchtune.pretrained import Pretrained
from branchtune.tasks.check import check_tasks, check_train_tasks, check_tree
from branchtune.tasks.task import Task
from branchtune.tree import TaskTree

if TYPE_CHECKING:
    from branchtune.low_memory.model import LowMemoryModel
    from branchtune.low_memory.precision import Precision
    from branchtune.merging.model import MergedModel


class MultiTaskModel(Pretrained, nn.Module):
    """One frozen backbone, a tree of adapters, a decoder per task.

    Args:
        backbone: a timm model, or any module given `levels`; left as it was, its frozen weights are
            shared. Adapters and decoders are made on its device and in its precision.
        tasks: the tasks, with distinct names.
        tree: which tasks share adapters at which level, also as the nested lists of `TaskTree`; default: all share
            everything.
        adapter: the adapter family; None trains decoders (and extras) only and needs a tree that never forks.
        decoder: of the dense tasks; image-level tasks get a pooled linear head.
        extras: shared parts of the backbone to train as well: "norms", "patch_embed", "relative_position",
            "patch_merging".
        train_backbone: full fine-tuning instead of adapters, on a copy of the weights.
        train_tasks: names of the tasks that train, default all: their decoders, the nodes that no other task uses,
            and, where they are all tasks, extras and backbone. The outputs of the other tasks do not move.
        checkpoint_levels: levels (True: all) whose blocks keep only their inputs during training and run again in the
            backward pass: the same gradients from less memory, for a second forward pass; not saved with the model.
        levels: where the tree may fork, see `resolve_levels`.
        image_size: height and width to trace the backbone at, see `trace_backbone`.
        example_inputs: further keyword inputs of the backbone for one image, see `trace_backbone`.
        spec: a description traced before, instead of these three.

    Raises:
        UserError: tree and tasks disagree, two tasks of one name, an argument of another kind, an unknown task in
            `train_tasks`, or the backbone cannot be traced or checkpointed.
    """

    @torch.inference_mode(False)  # in it, nothing could be made that trains
    def __init__(
        self,
        backbone: nn.Module,
        tasks: Sequence[Task],
        tree: TaskTree | Sequence[Sequence[Sequence[str]]] | None = None,
        adapter: Adapter | None = None,
        decoder: Decoder | None = None,
        *,
        extras: Sequence[str] = (),
        train_backbone: bool = False,
        train_tasks: Collection[str] | None = None,
        checkpoint_levels: bool | Sequence[int] = False,
        levels: str | list[str] | None = None,
        image_size: int | tuple[int, int] | None = None,
        example_inputs: Mapping[str, Tensor] | None = None,
        spec: BackboneSpec | None = None,
    ) -> None:
        super().__init__()
        self.tasks = check_tasks(tasks)
        check_module(backbone)
        check_instance("adapter", adapter, Adapter, "LoRA(r=8)")
        check_instance("decoder", decoder, Decoder, "LightDecoder()")
        spec = spec or trace_backbone(backbone, levels, image_size, example_inputs)
        if tree is None:
            tree = TaskTree.shared(list(self.tasks), len(spec.levels))
        elif not isinstance(tree, TaskTree):
            tree = TaskTree(tree)
        check_tree(tree, self.tasks)
        self.train_tasks = check_train_tasks(train_tasks, self.tasks)
        self.backbone = BranchedBackbone(
            backbone, spec, tree, adapter, extras, train_backbone, self.train_tasks, checkpoint_levels
        )
        self.extras, self.decoder = tuple(extras), decoder or LightDecoder()
        channels = [level.feature.channels for level in spec.levels]
        self.decoders = nn.ModuleDict(
            {
                name: self.decoder.build(channels, task.out_channels)
                if task.dense
                else PooledHead(channels, task.out_channels)
                for name, task in self.tasks.items()
            }
        )
        like = placement(backbone)
        self.backbone.adapters.to(like.device, like.dtype)
        self.decoders.to(like.device, like.dtype)
        for decoder_of_other in self._decoders_at_rest():
            decoder_of_other.requires_grad_(False)
        self.train()

    @property
    def tree(self) -> TaskTree:
        """Which tasks share adapters at which level."""
        return self.backbone.tree

    @property
    def spec(self) -> BackboneSpec:
        """The traced backbone: levels, sites, costs."""
        return self.backbone.spec

    @property
    def adapter(self) -> Adapter | None:
        """The adapter family; None where only decoders, extras or the whole backbone train."""
        return self.backbone.adapter

    @property
    def trained_tasks(self) -> dict[str, Task]:
        """The tasks that train, by name."""
        return {name: self.tasks[name] for name in self.train_tasks}

    def trains(self, parameter: str) -> bool:
        """Whether the plan trains the parameter of this name, whatever its `requires_grad` says."""
        if parameter.startswith("decoders."):
            return parameter.split(".")[1] in self.train_tasks
        if parameter.startswith("backbone.adapters."):
            return set(self.backbone.users[parameter.split(".")[2]]) <= set(self.train_tasks)
        return parameter.removeprefix("backbone.frozen.") in self.backbone.trainable

    def train(self, mode: bool = True) -> MultiTaskModel:
        """As of any module, but what does not train keeps its BatchNorm statistics."""
        super().train(mode)
        self._keep_frozen_statistics()
        return self

    def _decoders_at_rest(self) -> Iterator[nn.Module]:
        yield from (self.decoders[name] for name in self.tasks if name not in self.train_tasks)

    def _keep_frozen_statistics(self) -> None:
        for decoder in self._decoders_at_rest():
            keep_frozen_statistics(decoder)

    def forward(self, images: Tensor, tasks: Collection[str] | None = None, **inputs: Any) -> dict[str, Tensor]:
        """All tasks, or a subset of them, in one pass; every shared prefix is computed once.

        Args:
            images: `[B, 3, H, W]`, normalised as the backbone expects.
            tasks: names of the tasks wanted; the rest of the tree is not computed.
            inputs: further keyword inputs of the backbone.

        Returns:
            Per task `[B, C, H, W]` at the input's resolution, or `[B, C]` for an image-level task.

        Raises:
            UserError: images that the backbone cannot take, an unknown task, or none.
        """
        if isinstance(tasks, str):
            raise UserError(f"tasks={tasks!r} is a text: pass a list, tasks=[{tasks!r}]")
        if tasks is not None and not isinstance(tasks, Collection):
            raise UserError(f"tasks={tasks!r}: pass a list of names, such as {list(self.tasks)[:1]}")
        self._keep_frozen_statistics()  # a caller may have called train() on the modules one by one
        features = self.backbone(images, list(self.tasks if tasks is None else tasks), inputs)
        size = (images.shape[2], images.shape[3])
        return {name: decode(self.tasks[name], self.decoders[name], maps, size) for name, maps in features.items()}

    def cost(self) -> TreeCost:
        """Predicted parameters and multiply-accumulates of backbone and adapters, per node."""
        return tree_cost(self.spec, self.tree, self.adapter)

    def count_parameters(self, *, trained_only: bool = False) -> dict[str, int]:
        """Parameters by owner: `adapters`, `extras`, `decoders` and `backbone` train, `frozen` does not.

        `backbone` is zero but for full fine-tuning; parameters that the features do not depend on are not counted.

        Args:
            trained_only: without the parts that `train_tasks` leaves at rest, and without `frozen`.
        """
        counts = Counter({"adapters": 0, "extras": 0, "decoders": 0, "backbone": 0, "frozen": 0})
        for name, parameter in self.named_parameters():
            owner, local = self.owner_of(name)
            inside = owner in ("adapters", "decoders") or local in self.spec.parameters
            if inside and (not trained_only or self.trains(name)):
                counts[owner] += parameter.numel()
        if trained_only:
            del counts["frozen"]
        return dict(counts)

    def owner_of(self, parameter: str) -> tuple[str, str]:
        """Who owns the parameter of this name, and its name within the owner."""
        for prefix, owner in (("backbone.adapters.", "adapters"), ("decoders.", "decoders")):
            if parameter.startswith(prefix):
                return owner, parameter.removeprefix(prefix)
        local = parameter.removeprefix("backbone.frozen.")
        if self.backbone.train_backbone:
            return "backbone", local
        return ("extras" if local in self.backbone.extra_names else "frozen"), local

    def add_task(
        self,
        task: Task,
        *,
        like: str,
        levels: int,
        init: Literal["fresh", "copy"] = "fresh",
        train: Literal["new", "all"] = "new",
    ) -> MultiTaskModel:
        """A new model with one more task, which shares the nodes of `like` at the first `levels` levels.

        This model stays as it was, and the outputs of its tasks are the same bits in both; see `extension.add_task`.
        """
        from branchtune.extension import add_task

        return add_task(self, task, like=like, levels=levels, init=init, train=train)

    def remove_task(self, name: str) -> MultiTaskModel:
        """A new model without the task, its decoder and the nodes that only it used; see `extension.remove_task`."""
        from branchtune.extension import remove_task

        return remove_task(self, name)

    def training_only(self, tasks: Collection[str] | None) -> MultiTaskModel:
        """A new model of the same weights that trains these tasks, None for all; see `extension.training_only`."""
        from branchtune.extension import training_only

        return training_only(self, tasks)

    def merge(
        self,
        levels: str | Sequence[int] = "auto",
        *,
        memory_limit: int | None = None,
        batch_size: int = 1,
        example_inputs: Mapping[str, Tensor] | None = None,
    ) -> MergedModel:
        """A model for inference with adapters folded into copies of the weights; see `merging.merge.merge`."""
        from branchtune.merging.merge import merge

        return merge(self, levels, memory_limit=memory_limit, batch_size=batch_size, example_inputs=example_inputs)

    def low_memory(
        self, precision: Precision = "bfloat16", *, example_inputs: Mapping[str, Tensor] | None = None
    ) -> LowMemoryModel:
        """A model for inference with the backbone's weights in low precision; see `low_memory.model.low_memory`."""
        from branchtune.low_memory.model import low_memory

        return low_memory(self, precision, example_inputs=example_inputs)

    def requires_grad_(self, requires_grad: bool = True) -> MultiTaskModel:
        """Freeze everything, or let train again what the plan trains; what it freezes stays frozen."""
        self.backbone.requires_grad_(requires_grad)
        for name, decoder in self.decoders.items():
            decoder.requires_grad_(requires_grad and name in self.train_tasks)
        return self
