"""Lightning's checkpoints, for a run whose directory may move before it is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint as _ModelCheckpoint
from typing_extensions import override

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class ModelCheckpoint(_ModelCheckpoint):
    """Lightning's own forgets which checkpoint is the best where its folder has another path than before.

    It has the name of Lightning's class, by which the state in a checkpoint is found again.
    """

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        paths = {key: self._here(state_dict[key]) for key in _PATHS}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or "", Path(path).name)) if path else path
