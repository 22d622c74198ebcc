"""`branchtune demo` end to end, on a few small scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchtune.cli.main import main
from branchtune.evaluation.references import Reference
from branchtune.run.results import Results

TASKS = """--tasks={
  depth: {class_path: branchtune.Depth, init_args: {name: depth}},
  edge: {class_path: branchtune.Edges, init_args: {name: edge}},
}"""
TINY = [
    TASKS,
    "--backbone={name: test_vit, pretrained: false}",
    "--data.image_size=[32,32]",
    "--data.train_size=4",
    "--data.val_size=2",
    "--data.test_size=2",
    "--data.batch_size=2",
    "--decoder.dim=8",
    "--decoder.stride=8",
    "--decoder_fit.steps=1",
    "--affinity={samples: 4, batch_size: 2}",
    "--trainer.max_epochs=1",
    "--quiet",
]


def run(output: Path, *arguments: str) -> int:
    return main(["demo", f"--output={output}", *TINY, *arguments])


def test_it_trains_two_columns_and_continues_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    text = capsys.readouterr().out
    assert "one shared" in text
    assert "decoders\n" not in text
    assert "no committed results of this configuration" in text
    assert "the reference was trained with another configuration" in text
    runs = {method: tmp_path / "demo" / method for method in ("branched", "shared", "separate", "decoders")}
    assert [method for method, path in runs.items() if path.exists()] == ["branched", "shared"]
    decoders = {(runs[method] / "decoders.safetensors").read_bytes() for method in ("branched", "shared")}
    assert len(decoders) == 1
    assert all((runs[method] / "report.html").exists() for method in ("branched", "shared"))
    before = (runs["branched"] / "results.json").stat().st_mtime_ns

    assert run(tmp_path, "--train-all") == 0
    text = capsys.readouterr().out
    assert "demo trained here" in text
    assert "committed results" not in text
    assert (runs["branched"] / "results.json").stat().st_mtime_ns == before
    assert all(Results.load(path / "results.json").method == method for method, path in runs.items())
    reference = Reference.load(tmp_path / "demo" / "reference.json")
    assert sorted(reference.metrics) == ["depth", "edge"]
