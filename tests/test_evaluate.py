"""Which metrics an evaluation holds, over batches and over processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import branchtune as bt
from branchtune.demo.committed import committed_results
from branchtune.evaluation.evaluate import TaskMetrics, evaluate
from branchtune.joint import joint_step
from branchtune.run.inference import raw_outputs
from branchtune.settings import Settings
from small_model import small_model

SAMPLES, H, W = 5, 16, 20
DEMO = Path(bt.__file__).parent / "demo" / "scenes.yaml"


def tasks() -> list[bt.Task]:
    return [
        bt.SemanticSegmentation("semseg", 4),
        bt.Saliency("saliency"),
        bt.Normals("normals"),
        bt.Depth("depth"),
        bt.Edges("edge", match_dist=0.05),
    ]


def samples() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Outputs and targets; one sample has no label, another one in half of the pixels."""
    random = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(SAMPLES, *shape, H, W, generator=random)

    outputs = {
        "semseg": uniform(4),
        "saliency": 4 * uniform(1) - 2,
        "normals": 2 * uniform(3) - 1,
        "depth": 4 * uniform(1),
        "edge": 4 * uniform(1) - 2,
    }
    targets = {
        "semseg": torch.randint(0, 4, (SAMPLES, H, W), generator=random),
        "saliency": (uniform() > 0.5).float(),
        "normals": torch.nn.functional.normalize(2 * uniform(3) - 1, dim=1),
        "depth": 4 * uniform() + 0.1,
        "edge": (uniform() > 0.8).float(),
    }
    for name, target in targets.items():
        target[1] = target[3, ..., : W // 2] = 255 if name == "semseg" else torch.nan
    return outputs, targets


def part(tensors: dict[str, Tensor], indices: list[int]) -> dict[str, Tensor]:
    return {name: tensor[indices] for name, tensor in tensors.items()}


def counted(batches: list[list[int]], final: bool = True) -> TaskMetrics:
    outputs, targets = samples()
    metrics = TaskMetrics(tasks(), final)
    for batch in batches:
        metrics.update(part(outputs, batch), {**part(targets, batch), "image": torch.zeros(len(batch), 3, H, W)})
    return metrics


def evaluated(batches: list[list[int]], final: bool = True) -> dict[str, dict[str, float]]:
    return counted(batches, final).compute()


def flat(results: dict[str, dict[str, float]]) -> dict[tuple[str, str], float]:
    return {(task, key): value for task, found in results.items() for key, value in found.items()}


def test_the_numbers_of_every_task() -> None:
    found = {task: set(values) - {"loss"} for task, values in evaluated([[0, 1, 2, 3, 4]]).items()}
    assert found == {
        "semseg": {"miou"},
        "saliency": {"max_iou", "max_f"},
        "normals": {"mean_angle", "median_angle", "within_11.25", "within_22.5", "within_30"},
        "depth": {"rmse", "log_rmse", "abs_rel", "delta1", "delta2", "delta3"},
        "edge": {"best_f_dt", "ods_f", "ois_f", "ap"},
    }


def test_an_epoch_goes_without_the_slow_ones() -> None:
    every_epoch, final = evaluated([[0, 1]], final=False), evaluated([[0, 1]])
    assert set(final["edge"]) - set(every_epoch["edge"]) == {"ods_f", "ois_f", "ap"}
    assert flat(every_epoch).items() <= flat(final).items()


@pytest.mark.parametrize(
    "batches", [[[0], [1], [2], [3], [4]], [[0, 1, 2], [3, 4]], [[3, 1, 0, 2], [4]], [[1], [0, 2, 3, 4]]]
)
def test_batches_do_not_matter(batches: list[list[int]]) -> None:
    assert flat(evaluated(batches)) == pytest.approx(flat(evaluated([[0, 1, 2, 3, 4]])), rel=1e-12)


def test_without_any_label_every_number_is_nan() -> None:
    assert all(math.isnan(value) for values in evaluated([[1]]).values() for value in values.values())


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_images_take_the_precision_of_the_model(precision: torch.dtype) -> None:
    model = small_model().to(precision)
    random = torch.Generator().manual_seed(0)
    batch = {"image": torch.rand(2, 3, 32, 32, generator=random), "a": 1 + torch.rand(2, 32, 32, generator=random)}
    with torch.no_grad():
        outputs = model.eval()(batch["image"].to(precision))
    expected = TaskMetrics(model.tasks.values())
    expected.update(outputs, batch)
    assert evaluate(model, [batch])["a"] == expected.compute()["a"]
    with torch.no_grad():
        raw = raw_outputs(model, batch["image"], list(model.tasks))
    assert torch.equal(raw["a"], outputs["a"])  # a depth is not activated


def test_every_module_has_the_mode_that_it_had() -> None:
    model = small_model()
    model.decoders["b"].eval()
    modes = [module.training for module in model.modules()]
    evaluate(model, [{"image": torch.rand(1, 3, 32, 32)}])
    assert [module.training for module in model.modules()] == modes


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metrics = counted([[0, 1], [2]] if rank == 0 else [[3, 4]])
    with joint_step():
        torch.save(metrics.compute(), f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    one = flat(evaluated([[0, 1, 2, 3, 4]]))
    for rank in (0, 1):
        assert flat(torch.load(tmp_path / str(rank))) == pytest.approx(one, rel=1e-12)


def test_the_default_leaves_configurations_as_they_were() -> None:
    """Runs and committed results from before `match_dist` stay comparable."""
    settings = Settings.load(DEMO)
    assert settings.config.tasks["edge"].match_dist is None  # type: ignore[attr-defined]
    assert committed_results(settings)
    assert "match_dist: 0.01" in Settings.load(DEMO, ["--tasks.edge.init_args.match_dist=0.01"]).text()
