"""What the pre-trained backbone is worth: frozen, against the same network frozen at random, with equal decoders.

Each dense task gets its own small decoder (1x1 convolutions of all levels to 64 channels, summed at the finest level,
one 3x3 convolution, one output layer), fitted for the same steps on the same batches over either network's features.

    python scripts/probe_pretrained.py --weights src/branchtune/weights
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.data.scenes import CLASSES, PARTS, Scenes

CHANNELS = {"semseg": len(CLASSES), "parts": len(PARTS), "saliency": 1, "normals": 3, "depth": 1, "edge": 1}
METRICS = {
    "semseg": ("mIoU %", True),
    "parts": ("mIoU %", True),
    "saliency": ("IoU %", True),
    "normals": ("mean angle, degrees", False),
    "depth": ("RMSE, m", False),
    "edge": ("best F %, 1 px", True),
}
"""Each task's metric and whether higher is better."""

_THRESHOLDS = torch.linspace(0.05, 0.95, 19)


class Decoder(nn.Module):
    def __init__(self, widths: list[int], channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(width, hidden, 1) for width in widths)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, channels, 1)

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        finest = levels[0].shape[-2:]
        summed = sum(
            F.interpolate(project(level), finest, mode="bilinear", align_corners=False)
            for project, level in zip(self.project, levels, strict=True)
        )
        out = self.out(F.relu(self.mix(F.relu(summed))))
        return F.interpolate(out, size, mode="bilinear", align_corners=False)


def loss(task: str, output: Tensor, target: Tensor) -> Tensor:
    if task in ("semseg", "parts"):
        known = (target != 255).sum().clamp(min=1)
        return F.cross_entropy(output, target, ignore_index=255, reduction="sum") / known
    if task == "normals":
        return (F.normalize(output, dim=1) - target).abs().sum(1).mean()
    output = output.squeeze(1)
    if task == "depth":
        return (output - target).abs().mean()
    weight = torch.where(target == 1, 1 - target.mean(), target.mean()) if task == "saliency" else None
    if task == "edge":
        weight = torch.where(target == 1, 0.95, 0.05)
    return F.binary_cross_entropy_with_logits(output, target, weight=weight)


def score(task: str, outputs: Tensor, targets: Tensor) -> float:
    """The task's metric over a whole split."""
    if task in ("semseg", "parts"):
        known = targets != 255
        classes = outputs.shape[1]
        pairs = targets[known] * classes + outputs.argmax(1)[known]
        confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes).double()
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        return 100 * float((confusion.diagonal() / union)[confusion.sum(1) > 0].mean())
    if task == "normals":
        cosine = (F.normalize(outputs, dim=1) * targets).sum(1).clamp(-1, 1)
        return float(cosine.acos().rad2deg().mean())
    outputs = outputs.squeeze(1)
    if task == "depth":
        return float((outputs - targets).square().mean().sqrt())
    if task == "saliency":
        predicted, true = outputs > 0, targets == 1
        return 100 * float((predicted & true).sum() / (predicted | true).sum())
    near = F.max_pool2d(targets[:, None], 3, 1, 1)[:, 0]
    best = 0.0
    for threshold in _THRESHOLDS:
        predicted = (outputs.sigmoid() > threshold).float()
        precision = (predicted * near).sum() / predicted.sum().clamp(min=1)
        found = F.max_pool2d(predicted[:, None], 3, 1, 1)[:, 0]
        recall = (found * targets).sum() / targets.sum()
        best = max(best, 100 * float(2 * precision * recall / (precision + recall + 1e-9)))
    return best


def create(card: dict, weights: Path | None) -> nn.Module:
    backbone = timm.create_model(card["backbone"], pretrained=False, num_classes=0, **card["backbone_args"])
    if weights is not None:
        backbone.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return backbone.eval().requires_grad_(False)


@torch.inference_mode()
def features(backbone: nn.Module, data: Scenes) -> list[Tensor]:
    rows = []
    for start in range(0, len(data), 50):
        images = torch.stack([data[i]["image"] for i in range(start, min(start + 50, len(data)))])
        rows.append([f.half() for f in backbone.forward_intermediates(images, intermediates_only=True)])
    return [torch.cat(level) for level in zip(*rows, strict=True)]


def probe(name: str, backbone: nn.Module, train: Scenes, test: Scenes, args: argparse.Namespace) -> dict[str, float]:
    size = train.image_size
    half = (size[0] // 2, size[1] // 2)
    levels, held_out = features(backbone, train), features(backbone, test)
    torch.manual_seed(0)
    decoders = nn.ModuleDict({t: Decoder([f.shape[1] for f in levels], c) for t, c in CHANNELS.items()})
    # A random network's features have another scale: each level is standardised with its own training statistics.
    moments = [(f.float().mean((0, 2, 3), keepdim=True), f.float().std((0, 2, 3), keepdim=True) + 1e-5) for f in levels]
    optimizer = torch.optim.AdamW(decoders.parameters(), lr=args.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    # Fitted on every second pixel, which takes a quarter of the time; scored on all of them.
    targets = {t: torch.stack([_compact(train[i][t][..., ::2, ::2]) for i in range(len(train))]) for t in CHANNELS}
    generator, started = torch.Generator().manual_seed(0), time.perf_counter()
    for step in range(args.steps):
        chosen = torch.randperm(len(train), generator=generator)[: args.batch]
        batch = [(f[chosen].float() - m) / s for f, (m, s) in zip(levels, moments, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            outputs = {t: decoder(batch, half).float() for t, decoder in decoders.items()}
        total = sum(loss(t, o, _restore(t, targets[t][chosen])) for t, o in outputs.items())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"{name}: step {step + 1}/{args.steps}, {time.perf_counter() - started:.0f}s", flush=True)
    found = {}
    with torch.inference_mode():
        batch = [(f.float() - m) / s for f, (m, s) in zip(held_out, moments, strict=True)]
        for task, decoder in decoders.items():
            outputs = torch.cat([decoder([f[i : i + 50] for f in batch], size) for i in range(0, len(test), 50)])
            found[task] = score(task, outputs, torch.stack([test[i][task] for i in range(len(test))]))
    return found


def _compact(target: Tensor) -> Tensor:
    return target.to(torch.uint8) if target.dtype == torch.int64 else target.half()


def _restore(task: str, target: Tensor) -> Tensor:
    return target.long() if task in ("semseg", "parts") else target.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of scenes_swin.json and .safetensors")
    parser.add_argument("--train", type=int, default=1500, help="scenes to fit the decoders on")
    parser.add_argument("--test", type=int, default=400, help="scenes to score on")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1, help="of the scenes and of the random network")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=["random", "pretrained"], choices=["random", "pretrained"])
    parser.add_argument("--out", type=Path, help="JSON file to write the scores to")
    args = parser.parse_args()
    card = json.loads((args.weights / "scenes_swin.json").read_text())
    size = tuple(card["image_size"])
    train, test = (
        Scenes(split, count, size, args.seed, tuple(CHANNELS), card["mean"], card["std"])
        for split, count in (("train", args.train), ("test", args.test))
    )
    for data in (train, test):
        data.prepare(workers=args.workers)
    found = {}
    for name in args.networks:
        torch.manual_seed(args.seed)
        weights = args.weights / "scenes_swin.safetensors" if name == "pretrained" else None
        found[name] = probe(name, create(card, weights), train, test, args)
    print("| task | metric | " + " | ".join(f"frozen, {name}" for name in found) + " |")
    print("|---|---|" + "---|" * len(found))
    for task, (metric, higher) in METRICS.items():
        scores = " | ".join(f"{scored[task]:.2f}" for scored in found.values())
        print(f"| {task} | {metric} ({'higher' if higher else 'lower'} is better) | {scores} |")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
