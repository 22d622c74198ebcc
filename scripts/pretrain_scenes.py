"""Pre-train the small Swin that ships with the package, on image-level labels of procedural scenes.

No dense label is used: the network learns from vectors that describe a whole image (which classes are present, how
many of each, in which cell of a 4x4 grid their centres lie, how far away they are, camera pose, room size, light
direction, wall and floor texture). An interrupted run goes on from its last checkpoint.

    python scripts/pretrain_scenes.py --work runs/pretrain
    torchrun --nproc-per-node 2 scripts/pretrain_scenes.py --work runs/pretrain    # the batch split over processes
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.data.scenes import CLASSES, PARTS, STRUCTURE, TEXTURES, render_scene

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "branchtune" / "weights"
SIZE = 128
BACKBONE = "swin_tiny_patch4_window7_224"
BACKBONE_ARGS = {
    "img_size": SIZE,
    "window_size": 4,
    "embed_dim": 32,
    "depths": [2, 2, 4, 2],
    "num_heads": [2, 4, 8, 16],
}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
GRID_ROWS = len(CLASSES) - len(STRUCTURE) + len(PARTS) - 1
OUTPUTS = {
    "presence": len(CLASSES),
    "counts": len(CLASSES),
    "distance": len(CLASSES),
    "camera": 6,
    "room": 4,
    "light": 3,
    "palette": 6,
    "wall_texture": len(TEXTURES),
    "floor_texture": len(TEXTURES),
}
LABELS = (*OUTPUTS, "centres")
LOSS_WEIGHTS = {"presence": 2.0, "centres": 8.0, "early_centres": 4.0, "wall_texture": 0.3, "floor_texture": 0.3}
"""Weights of the losses; 1 for the others."""


def create_backbone() -> nn.Module:
    return timm.create_model(BACKBONE, pretrained=False, num_classes=0, **BACKBONE_ARGS)


class ImageLevelModel(nn.Module):
    """The backbone with a linear head over pooled features, and one over each cell of the last 4x4 map for "centres".

    A second head reads "centres" off the third stage, so that the middle of the network learns sooner.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = create_backbone()
        width = self.backbone.num_features
        self.vector = nn.Linear(width, sum(OUTPUTS.values()))
        self.cells = nn.Linear(width, GRID_ROWS)
        self.early_cells = nn.Conv2d(width // 2, GRID_ROWS, kernel_size=2, stride=2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features, (middle,) = self.backbone.forward_intermediates(images, indices=[2])
        vector = self.vector(features.mean((1, 2))).float()
        outputs = dict(zip(OUTPUTS, vector.split(list(OUTPUTS.values()), 1), strict=True))
        outputs["centres"] = self.cells(features).float().permute(0, 3, 1, 2).flatten(1)
        outputs["early_centres"] = self.early_cells(middle).float().flatten(1)
        return outputs


def losses(outputs: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, output in outputs.items():
        target = labels["centres" if name == "early_centres" else name]
        if name in ("presence", "centres", "early_centres"):
            found[name] = F.binary_cross_entropy_with_logits(output, target)
        elif name.endswith("texture"):
            found[name] = F.cross_entropy(output, target)
        else:
            target = torch.log1p(target) if name == "counts" else target
            known = target.isfinite()
            found[name] = F.smooth_l1_loss(output[known], target[known], beta=0.1)
    return found


def _render(job: tuple[int, str, int, int]) -> list[dict[str, NDArray]]:
    seed, split, start, stop = job
    rows = []
    for index in range(start, stop):
        scene = render_scene(seed, index, SIZE, SIZE, split=split)
        row = {name: scene[name] for name in LABELS}
        row["image"] = (scene["image"] * 255).round().astype(np.uint8)
        rows.append(row)
    return rows


def scenes(folder: Path, split: str, count: int, seed: int) -> dict[str, Tensor]:
    """Images (uint8) and labels of a split, rendered once into `folder`."""
    path = folder / f"{split}-{seed}-{count}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, list[NDArray]] = {name: [] for name in ("image", *LABELS)}
        started = time.perf_counter()
        jobs = [(seed, split, i, min(i + 100, count)) for i in range(0, count, 100)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for done, rows in enumerate(pool.map(_render, jobs), 1):
                for row in rows:
                    for name, value in row.items():
                        columns[name].append(value)
                if done % 10 == 0:
                    rate = len(columns["image"]) / (time.perf_counter() - started)
                    print(f"rendered {len(columns['image'])}/{count} {split} scenes, {rate:.1f}/s", flush=True)
        partial = path.with_suffix(".tmp")
        torch.save({name: torch.from_numpy(np.stack(rows)) for name, rows in columns.items()}, partial)
        partial.rename(path)
    return torch.load(path, weights_only=True, mmap=True)


def _normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and channel gains: what no label depends on ("palette" keeps the loss that this leaves)."""
    n = len(images)
    gain = 1 + 0.25 * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)
    tint = 1 + 0.08 * (2 * torch.rand(n, 3, 1, 1, generator=generator) - 1)
    shift = 0.2 * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)
    return images * gain * tint + shift


def _mirror(images: Tensor, labels: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Flip half of the images left to right, with the labels that depend on it."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    labels = {name: value.clone() for name, value in labels.items()}
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    grid = labels["centres"].view(len(images), GRID_ROWS, 4, 4)
    labels["centres"] = torch.where(flip[:, None, None, None], grid.flip(3), grid).flatten(1)
    sign = torch.where(flip, -1.0, 1.0)
    labels["camera"][:, 2] *= sign
    labels["camera"][:, 4] *= sign
    labels["light"][:, 0] *= sign
    labels["room"][flip] = labels["room"][flip][:, [2, 1, 0, 3]]
    return images, labels


def average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean over classes of the area under the precision-recall curve; classes without positives are left out."""
    values = []
    for score, target in zip(scores.T, targets.T, strict=True):
        if target.sum() > 0:
            ranked = target[score.argsort(descending=True)]
            precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
            values.append(float((precision * ranked).sum() / ranked.sum()))
    return float(np.mean(values))


@torch.inference_mode()
def validate(model: nn.Module, data: dict[str, Tensor]) -> dict[str, float]:
    model.eval()
    batches = []
    for start in range(0, len(data["image"]), 100):
        with torch.autocast("cpu", torch.bfloat16):
            batches.append(model(_normalise(data["image"][start : start + 100])))
    model.train()
    outputs = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    found = {name: float(value) for name, value in losses(outputs, data).items()}
    found["presence_map"] = average_precision(outputs["presence"], data["presence"])
    found["centres_map"] = average_precision(outputs["centres"], data["centres"])
    for name in ("wall_texture", "floor_texture"):
        found[f"{name}_top1"] = float((outputs[name].argmax(1) == data[name]).float().mean())
    return found


def batches(count: int, size: int, seed: int, first: int, steps: int) -> Iterator[tuple[int, Tensor, torch.Generator]]:
    """Step, indices and generator; each depends on (seed, step) alone, so that a resumed run repeats them."""
    per_epoch = count // size
    for step in range(first, steps):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + step // per_epoch))
        start = step % per_epoch * size
        yield step, order[start : start + size], torch.Generator().manual_seed((seed * 1_000_003 + step) * 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the rendered scenes and the checkpoint")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights, their card and the log")
    parser.add_argument("--images", type=int, default=18_000)
    parser.add_argument("--validation", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=1_200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--render-only", action="store_true")
    args = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    data = scenes(args.work, "train", args.images, args.seed)
    held_out = scenes(args.work, "val", args.validation, args.seed)
    if not args.render_only:
        train(args, data, held_out)


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over the processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def train(args: argparse.Namespace, data: dict[str, Tensor], held_out: dict[str, Tensor]) -> None:
    parallel = dist.is_initialized()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    model = ImageLevelModel()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], lr=args.lr, fused=True
    )
    checkpoint, first, spent = args.work / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
    log = (args.out / "pretrain.log").open("a" if first or rank else "w")

    def say(line: str) -> None:
        if rank == 0:
            print(line, flush=True)
            print(line, file=log, flush=True)

    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    count = sum(p.numel() for p in model.backbone.parameters())
    say(f"{'resumed at step ' + str(first) if first else 'started'}: backbone of {count:,} parameters, {settings}")
    started, running = time.perf_counter() - spent, {}
    for step, indices, generator in batches(args.images, args.batch, args.seed, first, args.steps):
        indices = indices[rank::ranks]
        generator.manual_seed(generator.initial_seed() + rank)
        labels = {name: data[name][indices] for name in LABELS}
        images, labels = _mirror(_augment(_normalise(data["image"][indices]), generator), labels, generator)
        warm, progress = min(1.0, (step + 1) / args.warmup), step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * 0.5 * (1 + math.cos(math.pi * progress))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        parts = losses(outputs, labels)
        loss = sum(LOSS_WEIGHTS.get(name, 1.0) * value for name, value in parts.items())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if parallel:
            average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        for name, value in {"loss": loss, **parts}.items():
            now = float(value.detach())
            running[name] = 0.95 * running.get(name, now) + 0.05 * now
        done = step + 1
        if done % 50 == 0:
            shown = " ".join(f"{name} {value:.4f}" for name, value in running.items())
            say(f"step {done}/{args.steps} {time.perf_counter() - started:.0f}s train {shown}")
        if rank == 0 and (done % 400 == 0 or done == args.steps):
            shown = " ".join(f"{name} {value:.4f}" for name, value in validate(model, held_out).items())
            say(f"step {done}/{args.steps} {time.perf_counter() - started:.0f}s validation {shown}")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            partial = checkpoint.with_suffix(".tmp")
            torch.save({**state, "seconds": time.perf_counter() - started}, partial)
            partial.rename(checkpoint)
    if rank == 0:
        save(args, model.backbone, validate(model, held_out), time.perf_counter() - started)


def save(args: argparse.Namespace, backbone: nn.Module, validation: dict[str, float], seconds: float) -> None:
    """Write the weights in half precision and the card that says how to build the backbone and where they come from."""
    state = {name: value.half().contiguous() for name, value in backbone.state_dict().items()}
    weights = args.out / "scenes_swin.safetensors"
    save_file(state, weights.with_suffix(".tmp"))
    card = {
        "format": 1,
        "backbone": BACKBONE,
        "backbone_args": BACKBONE_ARGS,
        "image_size": [SIZE, SIZE],
        "mean": MEAN,
        "std": STD,
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "trained_on": "image-level labels of branchtune.data.scenes (no dense label)",
        "labels": list(LABELS),
        "command": " ".join(["scripts/pretrain_scenes.py", *sys.argv[1:]]),
        "images": args.images,
        "steps": args.steps,
        "batch": args.batch,
        "seed": args.seed,
        "minutes": round(seconds / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
        "validation": {name: round(value, 4) for name, value in validation.items()},
    }
    partial = args.out / "scenes_swin.json.tmp"
    partial.write_text(json.dumps(card, indent=2) + "\n")
    weights.with_suffix(".tmp").rename(weights)
    partial.rename(args.out / "scenes_swin.json")
    print(f"wrote {weights} ({weights.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
