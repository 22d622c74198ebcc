"""A run that continues must have the weights, data, processes and model to start from that it began with."""

from __future__ import annotations

from typing import Any

from branchtune.errors import UserError


def check_unchanged(before: Any, now: dict[str, Any], trained: bool) -> None:
    """Compare the manifest of a run directory with that of the present call.

    Args:
        trained: whether training has begun.

    Raises:
        UserError: names what is not as it was.
    """
    _check_same_weights(before, now)
    _check_same_data(before, now)
    _check_same_start(before, now)
    if trained:
        _check_same_processes(before, now)


def _check_same_weights(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue on another content of the backbone's weight file."""
    old, new = (content.get("backbone") or {} for content in (before, now))
    key = "checkpoint_sha256"
    if old.get(key) != new.get(key):
        raise UserError(
            f"the weights in {new.get('checkpoint_file')} are not those that this run began with (SHA-256 "
            f"{str(old.get(key))[:12]}, now {str(new.get(key))[:12]}): restore the file or choose another --name"
        )


def _check_same_start(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue from another model."""
    old, new = ((content.get("start_from") or {}).get("hashes") for content in (before, now))
    if old != new:
        raise UserError(
            f"the model of {now['start_from']['run']} is not the one that this run began with: restore it or choose "
            "another --name"
        )


def _check_same_data(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue on another number of samples: their order, and with it the run, would be another one."""
    for split, new in now["data"].items():
        old = (before.get("data") or {}).get(split, new)
        if old["samples"] != new["samples"]:
            raise UserError(
                f"split {split!r} has {new['samples']} samples, but this run began with {old['samples']}: restore the "
                "data or choose another --name"
            )


def _check_same_processes(before: Any, now: dict[str, Any]) -> None:
    """Refuse to continue a training with joint batches of another size."""
    new = now["processes"]
    old = before.get("processes", new)
    if old != new:
        raise UserError(
            f"number of processes: {old} so far, {new} now, whose joint batches would be other ones: start as many as "
            f"before (torchrun --nproc-per-node={old}), or choose another --name"
        )
