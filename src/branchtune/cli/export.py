"""`branchtune export RUN --format onnx|torch|peft`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError, unknown
from branchtune.settings import parse

if TYPE_CHECKING:
    from branchtune.model import MultiTaskModel

TEXT = """Write a run's model for use without branchtune. RUN is a finished run's directory, or a folder that
save_pretrained wrote. onnx: one graph of all tasks for onnxruntime; torch: the same as a torch.export program;
peft: one LoRA adapter folder per task, and its decoder. The result is checked against the model before it appears."""

ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "peft": "-peft"}


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune export", description=TEXT)
    parser.add_argument("run", type=str, help="run directory, or a saved model's folder")
    parser.add_argument("--format", type=str, required=True, help="onnx, torch or peft")
    parser.add_argument(
        "-o",
        "--out",
        type=str | None,
        default=None,
        help="file, or folder for peft; default: RUN's name here",
    )
    parser.add_argument("--tasks", type=list[str] | None, default=None, help="only these tasks")
    parser.add_argument(
        "--image_size",
        type=tuple[int, int] | int | None,
        default=None,
        help="height and width, or one number for both (onnx, torch); default: the run's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier export wrote there")
    parser.add_argument(
        "--backbone_checkpoint", type=str | None, default=None, help="file of the backbone's weights, for a saved model"
    )
    options = parse(parser, argv)
    if options.format not in ENDINGS:
        raise unknown("format", options.format, ENDINGS)
    if options.format == "peft" and options.image_size is not None:
        raise UserError("--image_size: PEFT adapters have none, leave it out")
    from branchtune.progress import Reporter
    from branchtune.run.exportable import load_exportable
    from branchtune.shipping.export_path import check_output

    source = Path(options.run)
    out = Path(options.out or f"{source.resolve().name}{ENDINGS[options.format]}")
    check_output(out, options.overwrite, file=options.format != "peft")
    model = load_exportable(source, options.backbone_checkpoint, Reporter(quiet=True))
    print(_export(options.format, model, out, options))


def _export(kind: str, model: MultiTaskModel, out: Path, options: Namespace) -> object:
    arguments = {"tasks": options.tasks, "overwrite": options.overwrite}
    if kind == "peft":
        from branchtune.shipping.export_peft import export_peft

        return export_peft(model, out, **arguments)
    arguments["image_size"] = options.image_size
    if kind == "torch":
        from branchtune.shipping.export_torch import export_torch

        return export_torch(model, out, **arguments)
    from branchtune.shipping.export_onnx import export_onnx

    return export_onnx(model, out, **arguments)
