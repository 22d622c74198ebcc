"""The Lightning module: losses, one update per step, validation metrics."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from branchtune.batch import read_images
from branchtune.data.sampling import sample_generator
from branchtune.errors import DivergedError, UserError
from branchtune.evaluation.evaluate import TaskMetrics
from branchtune.finite import check_finite
from branchtune.joint import joint_means, joint_step, processes
from branchtune.model import MultiTaskModel
from branchtune.training.losses import task_losses
from branchtune.training.schedule import Schedule
from branchtune.training.task_gradients import accumulate, clip_task_gradients, joint_gradients, task_gradients
from branchtune.training.task_optimizer import TaskOptimizer

CHECKPOINT_FORMAT = 1
ADVICE = "lower the learning rate or its weight, or check these labels; the last checkpoint is kept"


class MultiTaskModule(L.LightningModule):
    """Trains a `MultiTaskModel` on batches made by `Collate`.

    The schedule needs the number of steps: a loader with a length or `limit_train_batches`, and `max_epochs` or
    `max_steps`.

    Args:
        model: the model.
        optimizer: how the tasks' losses become one update. One that needs a gradient per task switches Lightning to
            manual optimisation; clipping and accumulation are then done here, so that both keys mean the same.
        schedule: of the learning rate, per optimiser step.
        seed: dropout and drop-path of an epoch derive from (seed, epoch), so that a resumed run repeats them.
        gradient_clip_val: largest norm of the tasks' summed gradient, for manual optimisation only; otherwise the
            Trainer has it.
        accumulate_grad_batches: batches of one step, likewise.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        optimizer: TaskOptimizer,
        schedule: Schedule,
        seed: int = 0,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
    ) -> None:
        super().__init__()
        self.model, self.task_optimizer, self.schedule, self.seed = model, optimizer, schedule, seed
        self.clip, self.accumulation = gradient_clip_val, accumulate_grad_batches
        self.automatic_optimization = not optimizer.per_task_gradients
        self.strict_loading = False
        self.metrics = TaskMetrics(model.tasks.values())
        self.train_losses: dict[str, list[Tensor]] = {}
        self._gradients: dict[str, list[Tensor | None]] = {}
        self._labelled = False

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(int(sample_generator(self.seed, self.current_epoch, self.global_rank).integers(2**62)))
        self.train_losses = {}

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor | None:
        tasks = self.model.trained_tasks
        outputs = self.model(read_images(batch), list(tasks))
        with joint_step():
            losses = task_losses(outputs, batch, tasks)
        check_finite("loss", losses, batch.get("id", ()), f"at step {self.global_step}", ADVICE, DivergedError)
        for name, loss in losses.items():
            self.train_losses.setdefault(name, []).append(loss.detach())
        weighted = {name: self.model.tasks[name].weight * loss for name, loss in losses.items()}
        if not self.automatic_optimization:
            self._manual_step(weighted, batch_index)
            return None
        self._labelled |= bool(weighted)
        if not weighted and self.trainer.world_size > 1:
            # Lightning cannot skip a step of several processes: a gradient of zeros, which the optimizer never sees.
            return torch.stack([output.sum() for output in outputs.values()]).sum() * 0.0
        return torch.stack(list(weighted.values())).sum() if weighted else None

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if not self._labelled:
            optimizer.zero_grad(set_to_none=True)
        self._labelled = False

    def _manual_step(self, losses: Mapping[str, Tensor], batch_index: int) -> None:
        optimizer: Any = self.optimizers()
        parameters = optimizer.optimizer.parameters()
        new = task_gradients({name: loss / self.accumulation for name, loss in losses.items()}, parameters)
        accumulate(self._gradients, new)
        last = self.trainer.is_last_batch
        if (batch_index + 1) % self.accumulation and not last:
            return
        with joint_step():
            gradients = joint_gradients(self._gradients)
        if self.clip:
            clip_task_gradients(gradients, self.clip)
        optimizer.optimizer.set_task_gradients(gradients)
        optimizer.step()
        self._gradients = {}
        schedulers: Any = self.lr_schedulers()
        schedulers.step()

    def mean_train_losses(self) -> dict[str, float]:
        """The mean loss of every task over the batches of this epoch, of all processes."""
        means = [torch.stack(losses).mean() for losses in self.train_losses.values()]
        with joint_step():
            return dict(zip(self.train_losses, map(float, joint_means(means)), strict=True))

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Every process has seen its share of the batches: BatchNorm's running statistics become their mean.

        In float64, in which the mean of equal values is the value: constants among the buffers stay as they are.
        """
        backbone = self.model.backbone
        trained: list[torch.nn.Module] = [self.model.decoders[name] for name in self.model.train_tasks]
        if backbone.train_backbone and backbone.trainable:
            trained.append(backbone.frozen)
        buffers = [b for module in trained for b in module.buffers() if b.is_floating_point()]
        with joint_step():
            if processes() == 1:  # where the device may have no float64
                return
            for buffer, mean in zip(buffers, joint_means([buffer.double() for buffer in buffers]), strict=True):
                buffer.copy_(mean)

    def on_train_epoch_end(self) -> None:
        self._share_statistics()
        optimizer: Any = self.optimizers()
        self.log_dict(self.task_optimizer.diagnostics(optimizer.optimizer))

    def on_validation_epoch_start(self) -> None:
        if not self.trainer.sanity_checking:
            self._share_statistics()
        self.metrics.reset()

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        self.metrics.update(self.model(read_images(batch)), batch)

    def configure_optimizers(self) -> Any:
        optimizer = self.task_optimizer.build(self.model)
        trainer = self.trainer
        trainer.fit_loop.setup_data()  # else the number of batches is not known yet
        if math.isinf(trainer.num_training_batches):
            raise UserError(
                "the loader does not say how many batches an epoch has, which the schedule of the learning rate needs: "
                "give the Trainer limit_train_batches, or a dataset with a length"
            )
        # Lightning's own estimate does not know of the accumulation that manual optimisation does itself.
        per_epoch = -(-int(trainer.num_training_batches) // self.batches_per_step)
        limits = [] if trainer.max_epochs in (None, -1) else [per_epoch * int(trainer.max_epochs or 0)]
        limits += [] if trainer.max_steps == -1 else [trainer.max_steps]
        if not limits:
            raise UserError(
                "the Trainer sets no end of the training, which the schedule needs: give max_epochs or max_steps"
            )
        scheduler = self.schedule.build(optimizer, per_epoch, min(limits))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def batches_per_step(self) -> int:
        """Batches whose gradients make one step of the optimiser, in either mode of optimisation."""
        return self.accumulation * self.trainer.accumulate_grad_batches

    def trained_state(self) -> dict[str, Tensor]:
        """Everything that training moves: trainable parameters and the buffers of the decoders that train."""
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        state = self.model.state_dict()
        decoders = tuple(f"decoders.{name}." for name in self.model.train_tasks)
        moved = {name for name in state if name in trained or name.startswith(decoders)}
        if self.model.backbone.train_backbone and self.model.backbone.trainable:
            moved |= set(state)
        return {name: value for name, value in state.items() if name in moved}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_state`.

        Raises:
            UserError: other keys or shapes than this model trains.
        """
        expected = self.trained_state()
        for name in [*expected, *state]:
            if name not in state or name not in expected or state[name].shape != expected[name].shape:
                raise UserError(
                    f"the checkpoint is of another model: {name!r} does not fit, start a run of another name"
                )
        self.model.load_state_dict(dict(state), strict=False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Nothing: frozen weights are in no checkpoint; `on_save_checkpoint` adds what trains."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["branchtune"] = {
            "format": CHECKPOINT_FORMAT,
            "tree": copy.deepcopy(self.model.tree.to_json()),
            "backbone": self.model.spec.name,
        }
        checkpoint["state_dict"] = self.trained_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_checkpoint(checkpoint, self.model)
        self.load_trained_state(checkpoint["state_dict"])


def check_checkpoint(checkpoint: Mapping[str, Any], model: MultiTaskModel) -> None:
    """Refuse a checkpoint of another backbone, another tree or a newer format.

    Raises:
        UserError: which of them it is.
    """
    found = checkpoint.get("branchtune")
    if not isinstance(found, dict) or "state_dict" not in checkpoint:
        raise UserError("the checkpoint was not written by branchtune")
    if found["format"] > CHECKPOINT_FORMAT:
        raise UserError(
            f"the checkpoint has format {found['format']}, newer than {CHECKPOINT_FORMAT}: update branchtune"
        )
    if found["backbone"] != model.spec.name:
        raise UserError(f"the checkpoint is of backbone {found['backbone']!r}, the model has {model.spec.name!r}")
    if found["tree"] != model.tree.to_json():
        raise UserError("the checkpoint is of another tree: start a run of another name for this one")
