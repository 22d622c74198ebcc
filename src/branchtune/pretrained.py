"""How a model is saved, uploaded and loaded: methods with the arguments of PEFT and of the Hub's `ModelHubMixin`.

The model does not derive from `huggingface_hub.ModelHubMixin`. That saves file by file into the final folder; it makes
the repository before it saves, so that a model that cannot be saved leaves an empty one; loading asks the Hub about
every path that is no folder, also a mistyped one; and it keeps the constructor's arguments in a `config.json` of its
own. All of its public methods would have to be replaced. The patterns of files that it passes on to `upload_folder` are
not here: a part of a model cannot be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from branchtune.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from branchtune.model import MultiTaskModel


class Pretrained:
    """What `MultiTaskModel` inherits; the work is done by `branchtune.shipping`."""

    def save_pretrained(
        self: Any,
        save_directory: str | PathLike[str],
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Write the model to a folder without the frozen backbone's weights; see `shipping.save.save_pretrained`.

        With `push_to_hub` upload it as well and return the address of the commit; see `shipping.hub.save_and_push`.
        """
        from branchtune.shipping.hub import save_and_push
        from branchtune.shipping.save import save_pretrained

        if push_to_hub:
            return save_and_push(self, save_directory, repo_id, **options)
        if repo_id is not None:
            raise UserError(f"repo_id={repo_id!r} is where to upload to: pass push_to_hub=True as well")
        save_pretrained(self, save_directory, **options)
        return None

    def push_to_hub(self: Any, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub; see `shipping.hub.push_to_hub`."""
        from branchtune.shipping.hub import push_to_hub

        return push_to_hub(self, repo_id, **options)

    @staticmethod
    def from_pretrained(
        path: str | PathLike[str],
        *,
        backbone: nn.Module | None = None,
        backbone_checkpoint: str | PathLike[str] | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        checkpoint_levels: bool | Sequence[int] = False,
    ) -> MultiTaskModel:
        """Load what `save_pretrained` wrote, in eval mode; see `shipping.load.load_pretrained`."""
        from branchtune.shipping.load import load_pretrained

        return load_pretrained(
            path,
            backbone=backbone,
            backbone_checkpoint=backbone_checkpoint,
            device=device,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            checkpoint_levels=checkpoint_levels,
        )
