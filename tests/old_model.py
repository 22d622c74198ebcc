"""The model in `data/format1`, as it was made: a test_vit of random weights, three tasks, a tree that forks twice.

`python tests/old_model.py FOLDER` writes such a folder in the present format. The committed one is not written again:
it shows that models of older versions still load.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import branchtune as bt
from branchtune.backbone.source import create_backbone

FOLDER = Path(__file__).parent / "data" / "format1"
WEIGHTS, OUTPUTS = "backbone.safetensors", "outputs.safetensors"
SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 4, "num_heads": 2, "mlp_ratio": 1.0}


def images() -> Tensor:
    """`[2, 3, 16, 16]` without a random generator: the same in every version of torch."""
    return torch.arange(2 * 3 * 16 * 16, dtype=torch.float64).mul(0.37).sin().float().view(2, 3, 16, 16)


def sampled(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every fourth pixel of the dense outputs."""
    return {name: (o[:, :, ::4, ::4] if o.ndim == 4 else o).contiguous() for name, o in outputs.items()}


def write(folder: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    save_file(create_backbone("test_vit", pretrained=False, **SIZES).state_dict(), folder / WEIGHTS)
    model = bt.MultiTaskModel(
        create_backbone("test_vit", checkpoint=folder / WEIGHTS, **SIZES),
        [bt.Depth("depth"), bt.SemanticSegmentation("semseg", num_classes=3), bt.ImageClassification("scene", 4)],
        bt.TaskTree(
            [
                [["depth", "semseg", "scene"]],
                [["depth", "semseg", "scene"]],
                [["depth", "semseg"], ["scene"]],
                [["depth"], ["semseg"], ["scene"]],
            ]
        ),
        bt.LoRA(r=1, target_modules=["qkv", "fc2"]),
        bt.LightDecoder(dim=8, stride=4),
        extras=["norms"],
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        save_file(sampled(model(images())), folder / OUTPUTS)
    model.save_pretrained(folder / "model")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
