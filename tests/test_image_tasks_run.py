"""Image classification and regression through a whole run, beside a dense task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from branchtune.cli.main import main
from branchtune.data.scenes import TEXTURES, render_scene
from branchtune.run.results import Results
from tiny_run import write_config

SIZE = 32


def test_image_level_tasks_are_trained_evaluated_and_predicted(tmp_path: Path) -> None:
    scene = render_scene(0, 0, SIZE, SIZE)
    outputs = {"distance": len(scene["distance"])}
    content = yaml.safe_load(write_config(tmp_path).read_text())
    content["tasks"] = {
        "depth": {"class_path": "branchtune.Depth", "init_args": {"name": "depth"}},
        "wall_texture": {
            "class_path": "branchtune.ImageClassification",
            "init_args": {"name": "wall_texture", "num_classes": len(TEXTURES)},
        },
        "distance": {
            "class_path": "branchtune.ImageRegression",
            "init_args": {"name": "distance", "num_outputs": outputs["distance"]},
        },
    }
    sizes = {"train_size": 4, "val_size": 2, "test_size": 2}
    content["data"] = {"kind": "scenes", "image_size": [SIZE, SIZE], "batch_size": 2, **sizes}
    content["tree"] = {"groups": [1, 1, 2, 3]}
    content["trainer"]["max_epochs"] = 1
    config = tmp_path / "image.yaml"
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", str(config), "--quiet"]) == 0
    run = tmp_path / "runs" / "tiny"
    results = Results.load(run / "results.json")
    assert results.groups == [1, 1, 2, 3]
    assert 0 <= results.metrics["wall_texture"]["accuracy"] <= 1
    assert results.metrics["distance"]["rmse"] > 0
    report = (run / "report.html").read_text()
    assert 'class="word">class ' in report
    assert "data:image/jpeg" in report
    table = (run / "metrics.csv").read_text()
    assert ",wall_texture," in table
    Image.fromarray((scene["image"].transpose(1, 2, 0) * 255).astype(np.uint8)).save(tmp_path / "scene.png")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "scene.png"), "-o", str(out), "--quiet"]) == 0
    texture = np.load(out / "scene.wall_texture.npy")
    assert texture.shape == (len(TEXTURES),)
    assert texture.sum() == pytest.approx(1)
    assert np.load(out / "scene.distance.npy").shape == (outputs["distance"],)
    assert np.load(out / "scene.depth.npy").shape == (SIZE, SIZE)
