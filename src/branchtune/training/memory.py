"""What a training took: seconds and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class Training:
    """The cost of a training.

    Attributes:
        seconds: of wall time.
        memory: bytes. On a CUDA device the most that was allocated; elsewhere, where no such count exists, what the
            largest step needs: all weights, gradients and optimiser state, and what is kept for the backward pass
            (with checkpoint_levels not what one block needs while it runs again). None where nothing was trained in
            this process.
    """

    seconds: float
    memory: int | None


class Memory(L.Callback):
    """Measures `Training.memory`, on the first step of this process."""

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}
        self._hooks: saved_tensors_hooks | None = None
        self._on_cuda = False
        self.bytes: int | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._on_cuda = module.device.type == "cuda"
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._on_cuda:  # what is recorded between the epochs does not count
            self.bytes = max(self.bytes or 0, torch.cuda.max_memory_allocated(module.device))

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        if self.bytes is None and not self._on_cuda:
            self._hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)
            self._hooks.__enter__()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        self._leave()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        self._leave()
        if self.bytes is None and not self._on_cuda:
            self.bytes = self._total(trainer, module)
            self._kept.clear()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._kept[storage.data_ptr()] = max(storage.nbytes(), self._kept.get(storage.data_ptr(), 0))
        return tensor

    def _total(self, trainer: L.Trainer, module: L.LightningModule) -> int:
        weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in module.parameters()}
        gradients = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
        state = sum(
            value.untyped_storage().nbytes()
            for optimizer in trainer.optimizers
            for values in optimizer.state.values()
            for value in (values.values() if isinstance(values, dict) else ())
            if isinstance(value, Tensor)
        )
        kept = sum(size for pointer, size in self._kept.items() if pointer not in weights)
        return sum(weights.values()) + gradients + state + kept
