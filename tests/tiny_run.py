"""A whole run in seconds: a tiny tree in the NYUD_MT layout, timm's test_vit, random weights."""

from __future__ import annotations

from pathlib import Path

from nyud_tree import write_nyud_tree

YAML = """
name: tiny
output: {output}
seed: 3
tasks:
  semseg: {{class_path: branchtune.SemanticSegmentation, init_args: {{name: semseg, num_classes: 39}}}}
  depth: {{class_path: branchtune.Depth, init_args: {{name: depth}}}}
  normals: {{class_path: branchtune.Normals, init_args: {{name: normals}}}}
  edge: {{class_path: branchtune.Edges, init_args: {{name: edge}}}}
backbone: {{name: test_vit, pretrained: false}}
data: {{kind: nyud, root: {root}, image_size: [32, 32], batch_size: 2, augmentation: {{flip: 0.5}}}}
adapter: {{class_path: branchtune.LoRA, init_args: {{r: 2}}}}
decoder: {{class_path: branchtune.LightDecoder, init_args: {{dim: 8, stride: 8}}}}
decoder_fit: {{steps: 3}}
affinity: {{samples: 4, batch_size: 2}}
tree: {{groups: [1, 1, 2, 4]}}
schedule: {{warmup_epochs: 1}}
trainer: {{max_epochs: 3, accelerator: cpu}}
loggers: []
conflict_every: 1
"""


def write_config(folder: Path, root: Path | None = None) -> Path:
    """The configuration file of a tiny run whose data lie in `root`, by default in `folder` too."""
    root = root or folder / "nyud"
    if not root.exists():
        root.mkdir()
        write_nyud_tree(root)
    path = folder / "tiny.yaml"
    path.write_text(YAML.format(output=folder / "runs", root=root))
    return path
