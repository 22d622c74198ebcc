"""Checkpoint file -> timm model of any image size, with an account of every key."""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from branchtune.errors import UserError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
#: buffers that a model computes from its own size, and counters that evaluation never reads
_COMPUTED = ("relative_position_index", "attn_mask", "relative_coords_table", "num_batches_tracked")
_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    KeyError,
    AttributeError,
    pickle.PickleError,
    SafetensorError,
)
_USUAL_CLASSIFIERS = ("head", "fc", "classifier")


@dataclass(frozen=True)
class WeightReport:
    """What became of every key of the checkpoint and of the model.

    Args:
        loaded: keys of the model whose tensor is the checkpoint's.
        resampled: keys of the model whose tensor was converted to fit (position embeddings at another size).
        missing: keys of the model that the checkpoint lacks; all of them are explained, see `load_weights`.
        unexpected: keys of the checkpoint that the model has no place for; all of them are explained.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        """The four lists of keys, for `json.dump`."""
        return {name: list(keys) for name, keys in asdict(self).items()}

    def summary(self) -> str:
        """One line: the counts, and the first keys of everything that was not simply loaded."""
        parts = [f"{len(self.loaded)} loaded"]
        for name in ("resampled", "missing", "unexpected"):
            keys = getattr(self, name)
            parts.append(f"{len(keys)} {name}" + (f" ({_first(keys)})" if keys else ""))
        return ", ".join(parts)


def load_weights(model: nn.Module, path: str | Path) -> WeightReport:
    """Load a checkpoint into a timm model, resampling what depends on the image size as timm itself does.

    The only keys that may be missing or unexpected are those of the classifier and its head (a backbone has
    none), buffers that the model computes from its own size, and counters of BatchNorm; unexpected are also
    those that timm itself drops or merges into others. The model is changed only when everything fits.

    Args:
        model: a model made by `timm.create_model`, or a plain module whose keys are the file's.
        path: a `.safetensors` file, or a PyTorch file (`.pth`, `.pt`, `.bin`) that holds nothing but tensors.

    Raises:
        UserError: the file is missing, damaged or of another format; a key is missing or unexpected without
            such an explanation; a shape does not fit.
    """
    path = Path(path)
    stored = _read(path)
    converted = _convert(model, stored, path)
    own = model.state_dict()
    classifiers = _classifiers(model)
    heads = tuple(name.split(".")[0] for name in classifiers)
    wanted = {
        key: tensor
        for key, tensor in converted.items()
        if key in own and not (_under(key, classifiers) and tensor.shape != own[key].shape)
    }
    for key, tensor in wanted.items():
        if tensor.shape != own[key].shape:
            raise UserError(
                f"{path}: {key} has shape {tuple(tensor.shape)} but the model needs {tuple(own[key].shape)}, "
                "take the checkpoint of this backbone at this image size"
            )
    missing = _keys(own.keys() - wanted.keys())
    unplaced = converted.keys() - wanted.keys()
    _require_explained(path, "missing from the checkpoint", missing, classifiers)
    _require_explained(path, "unknown to the model", _keys(unplaced), (*heads, "head_dist"))
    sources = {id(tensor) for tensor in stored.values()}
    same = {key for key, tensor in wanted.items() if id(tensor) in sources or _equal(tensor, stored.get(key))}
    model.load_state_dict(wanted, strict=False)
    return WeightReport(
        loaded=_keys(same),
        resampled=_keys(wanted.keys() - same),
        missing=missing,
        unexpected=_keys(unplaced | _consumed(stored, converted)),
    )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), check the path") from error
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file, check the path")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown checkpoint format, use one of {', '.join(SUFFIXES)}")
    try:
        stored = load_state_dict(str(path), weights_only=True)
    except _UNREADABLE as error:
        raise UserError(f"{path}: damaged, or not a file of tensors ({_one_line(error)})") from error
    if not isinstance(stored, dict) or not stored or not all(isinstance(t, Tensor) for t in stored.values()):
        raise UserError(f"{path}: holds no dictionary of tensors, save the model's state_dict")
    return stored


def _convert(model: nn.Module, stored: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What timm makes of a checkpoint for this model: renamed keys, resampled position embeddings."""
    convert: Callable[..., dict[str, Tensor]] | None = getattr(
        sys.modules[type(model).__module__], "checkpoint_filter_fn", None
    )
    if convert is None:
        return dict(stored)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's hints about timm's own code
            return convert(dict(stored), model)
    except Exception as error:
        raise UserError(
            f"{path}: not a checkpoint of {type(model).__name__} ({type(error).__name__}: {_one_line(error)})"
        ) from error


def _require_explained(path: Path, what: str, keys: Iterable[str], classifiers: tuple[str, ...]) -> None:
    unexplained = [key for key in keys if not _under(key, classifiers) and not key.endswith(_COMPUTED)]
    if unexplained:
        raise UserError(
            f"{path}: {len(unexplained)} keys are {what} ({_first(unexplained)}), take the checkpoint of this backbone"
        )


def _consumed(stored: dict[str, Tensor], converted: dict[str, Tensor]) -> set[str]:
    """Keys of the file that timm's conversion dropped or merged into others, as opposed to renamed."""
    kept = {id(tensor) for tensor in converted.values()}
    return {key for key, tensor in stored.items() if key not in converted and id(tensor) not in kept}


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or _USUAL_CLASSIFIERS
    return (named,) if isinstance(named, str) else tuple(named)


def _under(key: str, modules: Iterable[str]) -> bool:
    return any(key.startswith(f"{module}.") for module in modules)


def _equal(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.shape == other.shape and torch.equal(tensor, other)


def _keys(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
