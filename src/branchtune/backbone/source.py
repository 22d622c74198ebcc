"""Where a backbone and its weights come from: create one by name, and remember how."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchtune.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

    from branchtune.weight_loading import WeightReport

PACKAGED = "scenes_swin"
ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


@dataclass(frozen=True)
class BackboneSource:
    """How to create a backbone again.

    Attributes:
        name: what `create_backbone` takes, without the tag.
        kwargs: the constructor's arguments where they differ from the defaults.
        pretrained: whether the weights are those published under `name` and `tag`.
        tag: which of timm's sets of weights, and of the image statistics that go with them.
        checkpoint_file: name of the local file that the weights came from.
        checkpoint_sha256: SHA-256 of that file.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    tag: str | None = None
    checkpoint_file: str | None = None
    checkpoint_sha256: str | None = None

    def __str__(self) -> str:
        weights = f".{self.tag}" if self.tag else ""
        arguments = "".join(f", {key}={value!r}" for key, value in self.kwargs.items())
        origin = f", weights of {self.checkpoint_file}" if self.checkpoint_file else ""
        return f"{self.name}{weights}{arguments}{origin}"

    @property
    def has_weights(self) -> bool:
        """Whether the weights can be had again; not so for a backbone that was created at random."""
        return self.pretrained or self.checkpoint_file is not None

    @property
    def names_files(self) -> bool:
        """Whether its arguments are, or may hold, paths: of one machine, and not to be read because a file says so."""
        return any(key in self.kwargs for key in _FILES)

    def create(self, *, pretrained: bool | None = None, checkpoint: str | Path | None = None) -> nn.Module:
        """The same backbone again; see `create_backbone` for the arguments and errors."""
        pretrained = self.pretrained if pretrained is None else pretrained
        name = f"{self.name}.{self.tag}" if self.tag else self.name
        return create_backbone(name, pretrained=pretrained, checkpoint=checkpoint, **self.kwargs)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def create_backbone(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a backbone without a classifier, and note on it where it comes from (`source_of`, `report_of`).

    Args:
        name: any name of timm's, with or without a tag, or "scenes_swin", a small Swin whose weights ship with
            branchtune (128x128 images of procedural scenes).
        pretrained: load the published weights; False leaves them random.
        checkpoint: a local file to load instead, see `load_weights`.
        image_size: height and width that timm's constructor gets as `img_size` where it takes that argument: position
            embeddings and windows are made for one size. The packaged backbone and names from elsewhere (`hf-hub:`,
            `local-dir:`) keep their own, and an `img_size` among `kwargs` goes before it.
        kwargs: the model's constructor arguments, such as `img_size=`; `num_classes` is 0 unless given.

    Raises:
        UserError: an unknown name or tag, arguments that the model does not take, weights that cannot be loaded.
    """
    from branchtune.weight_loading import file_sha256, load_weights

    download = pretrained and checkpoint is None and name != PACKAGED
    if name == PACKAGED:
        model = _build_packaged(kwargs)
        file = _packaged(f"{PACKAGED}.safetensors") if pretrained and checkpoint is None else checkpoint
    else:
        _check_name(name, download)
        sized = None if name.startswith(ELSEWHERE) else image_size
        (model, kwargs), file = _build_sized(name, download, kwargs, sized), checkpoint
    model.branchtune_report = None if file is None else load_weights(model, file)
    elsewhere = name.startswith(ELSEWHERE)
    model.branchtune_source = BackboneSource(
        name=name if elsewhere else name.partition(".")[0],
        kwargs=kwargs,
        pretrained=pretrained and checkpoint is None,
        tag=None if elsewhere else model.pretrained_cfg.get("tag") or None,
        checkpoint_file=None if checkpoint is None else Path(checkpoint).name,
        checkpoint_sha256=None if checkpoint is None else file_sha256(checkpoint),
    )
    return model


def source_of(backbone: nn.Module) -> BackboneSource | None:
    """What `create_backbone` noted, or for another timm model what its configuration tells; else None.

    A model straight from timm does not know whether its weights were loaded, nor, if timm is older than the pinned
    version, most of its constructor arguments (`img_size`, `dynamic_img_size` and `in_chans` show): the fingerprint of
    its weights must tell whether a new one is the same.

    Args:
        backbone: any module.
    """
    from branchtune.backbone.check import image_channels

    noted = getattr(backbone, "branchtune_source", None)
    if isinstance(noted, BackboneSource):
        return noted
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    if not cfg.get("architecture"):
        return None
    kwargs = {k: v for k, v in getattr(backbone, "_model_args", {}).items() if k != "num_classes"}
    size = getattr(getattr(backbone, "patch_embed", None), "img_size", None)
    if size is not None and ("img_size" in kwargs or tuple(size) != tuple(cfg["input_size"][1:])):
        kwargs["img_size"] = list(size)
    if getattr(backbone, "dynamic_img_size", False):
        kwargs["dynamic_img_size"] = True
    if image_channels(backbone) != cfg["input_size"][0]:
        kwargs["in_chans"] = image_channels(backbone)
    if cfg.get("source") == "hf-hub":
        return BackboneSource(f"hf-hub:{cfg['hf_hub_id']}", kwargs)
    published = bool(cfg.get("hf_hub_id") or cfg.get("url"))
    return BackboneSource(cfg["architecture"], kwargs, pretrained=published, tag=cfg.get("tag") or None)


def report_of(backbone: nn.Module) -> WeightReport | None:
    """What became of every key of the file that `create_backbone` loaded; None where timm loaded the weights.

    Args:
        backbone: any module.
    """
    return getattr(backbone, "branchtune_report", None)


def _build_sized(
    architecture: str, pretrained: bool, kwargs: dict[str, Any], image_size: tuple[int, int] | None
) -> tuple[Any, dict[str, Any]]:
    """The model, made for `image_size` where its constructor takes one, and the arguments that made it."""
    import torch

    if image_size is None or "img_size" in kwargs:
        return _build(architecture, pretrained, kwargs), kwargs
    random_state = torch.get_rng_state()
    sized = {"img_size": tuple(image_size), **kwargs}
    try:
        return _build(architecture, pretrained, sized), sized
    except UserError as error:
        if not isinstance(error.__cause__, TypeError):
            raise
    torch.set_rng_state(random_state)  # so that the weights do not depend on the attempt
    return _build(architecture, pretrained, kwargs), kwargs


def _build(architecture: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(architecture, pretrained=pretrained, **{"num_classes": 0, **kwargs})
    except Exception as error:
        if pretrained:
            _build(architecture, False, kwargs)
            raise UserError(
                f"the weights of {architecture} could not be downloaded ({_one_line(error)}): pass a local file as "
                "checkpoint=, or pretrained=False for random weights"
            ) from error
        shown = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise UserError(
            f"timm cannot create {architecture} with {shown} ({_one_line(error)}): change these arguments"
        ) from error


def _check_name(name: str, pretrained: bool) -> None:
    import timm

    if name.startswith(ELSEWHERE):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown("backbone", name, [*timm.list_models(), PACKAGED])
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        published = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise unknown(f"weights (tag) of {architecture}", tag, published) from error
    if pretrained and not (cfg and cfg.has_weights):
        raise UserError(f"timm has no weights for {name}: pass a file as checkpoint=, or pretrained=False")


def _build_packaged(kwargs: dict[str, Any]) -> Any:
    card = json.loads(_packaged(f"{PACKAGED}.json").read_text(encoding="utf-8"))
    model = _build(card["backbone"], False, {**card["backbone_args"], **kwargs})
    statistics = {"input_size": (3, *card["image_size"]), "mean": tuple(card["mean"]), "std": tuple(card["std"])}
    origin = {"architecture": PACKAGED, "tag": "", "hf_hub_id": None, "url": ""}
    model.pretrained_cfg = {**model.pretrained_cfg, **statistics, **origin}
    return model


def _packaged(file: str) -> Path:
    path = Path(str(resources.files("branchtune") / "weights" / file))
    if not path.is_file():
        raise UserError(f"{path} is missing from this installation of branchtune: install it again")
    return path


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
