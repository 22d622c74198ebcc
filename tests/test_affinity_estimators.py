"""Estimators against brute force over pairs, and their standard errors against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from branchtune.affinity.estimator import Estimate, Estimator
from branchtune.affinity.gradients import Layout
from branchtune.affinity.mean_cosine import MAX_BLOCKS, MIN_BLOCKS, MeanCosine
from branchtune.affinity.paired_similarity import PairedSimilarity
from branchtune.affinity.similarity import similarity

LAYOUT = Layout(3, (0, 0, 2, 2), (4, 3, 5, 6))
SLICES = [slice(0, 18), slice(0, 7), slice(7, 7), slice(7, 18)]


def gradients(tasks: int, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated gradients of very different length, and labels that are partly missing."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(tasks, 1, LAYOUT.total, generator=generator, dtype=torch.float64)
    image = torch.randn(1, samples, LAYOUT.total, generator=generator, dtype=torch.float64)
    noise = torch.randn(tasks, samples, LAYOUT.total, generator=generator, dtype=torch.float64)
    length = torch.rand(tasks, samples, 1, generator=generator, dtype=torch.float64) * 5 + 1e-3
    labelled = torch.rand(tasks, samples, generator=generator) < 0.7
    labelled[:, :2] = True
    return (mean + image + noise) * length * labelled[..., None], labelled


def run(estimator: Estimator, grads: Tensor, labelled: Tensor, chunk: int = 3) -> Estimate:
    for start in range(0, grads.shape[1], chunk):
        estimator.add(grads[:, start : start + chunk], labelled[:, start : start + chunk])
    return estimator.estimate()


def brute_force(grads: Tensor, labelled: Tensor) -> np.ndarray:
    """Mean cosine over all pairs of different samples, overall and per level: `[4, T, T]`."""
    tasks, samples = labelled.shape
    result = np.zeros((len(SLICES), tasks, tasks))
    for m, part in enumerate(SLICES):
        length = grads[..., part].norm(dim=-1, keepdim=True)
        unit = grads[..., part] / length.where(length > 0, torch.ones(()))
        for t, s in itertools.product(range(tasks), repeat=2):
            cosines = unit[t] @ unit[s].T
            counts = labelled[t][:, None] & labelled[s][None, :] & ~torch.eye(samples, dtype=torch.bool)
            result[m, t, s] = cosines[counts].mean()
    return result


def test_mean_cosine_is_brute_force_over_pairs_of_different_samples() -> None:
    grads, labelled = gradients(3, 11)
    found = run(MeanCosine(3, LAYOUT, blocks=4), grads, labelled)
    expected = brute_force(grads, labelled)
    np.testing.assert_allclose(found.overall, expected[0], atol=1e-12)
    np.testing.assert_allclose(found.per_level, expected[1:], atol=1e-12)


def test_mean_cosine_in_single_precision() -> None:
    grads, labelled = gradients(3, 40)
    found = run(MeanCosine(3, LAYOUT), 1e-25 * grads.float(), labelled)
    np.testing.assert_allclose(found.overall, brute_force(grads, labelled)[0], atol=1e-5)


def test_chunks_do_not_matter() -> None:
    grads, labelled = gradients(2, 12)
    one, all_at_once = (run(MeanCosine(2, LAYOUT), grads, labelled, chunk) for chunk in (1, 12))
    np.testing.assert_allclose(one.overall, all_at_once.overall, atol=1e-13)
    np.testing.assert_allclose(one.per_level_error, all_at_once.per_level_error, atol=1e-12)


@pytest.mark.parametrize("blocks", [32, 3])
def test_the_error_is_the_jackknife_written_out(blocks: int) -> None:
    grads, labelled = gradients(2, 9)
    labelled[:] = True
    found = run(MeanCosine(2, LAYOUT, blocks=blocks), grads, labelled)
    used = min(blocks, 9)
    left_out = []
    for block in range(used):
        rest = [i for i in range(9) if i % used != block]
        left_out.append(brute_force(grads[:, rest], labelled[:, rest]))
    values = np.stack(left_out)
    expected = np.sqrt((used - 1) / used * ((values - values.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.overall_error, expected[0], atol=1e-12)
    np.testing.assert_allclose(found.per_level_error, expected[1:], atol=1e-12)


def test_unlabelled_samples_change_neither_value_nor_error() -> None:
    grads, _ = gradients(2, 10)
    grads, labelled = grads.clone(), torch.ones(2, 10, dtype=torch.bool)
    padded = torch.cat([grads, torch.zeros_like(grads)], dim=1)
    plain = run(MeanCosine(2, LAYOUT), grads, labelled)
    more = run(MeanCosine(2, LAYOUT), padded, torch.cat([labelled, torch.zeros_like(labelled)], dim=1))
    np.testing.assert_allclose(more.overall, plain.overall, atol=1e-13)
    np.testing.assert_allclose(more.overall_error, plain.overall_error, atol=1e-13)


def test_blocks_shrink_where_gradients_are_long() -> None:
    assert MeanCosine(4, LAYOUT).blocks == MAX_BLOCKS
    assert MeanCosine(4, Layout(1, (0,), (20_000_000,))).blocks == MIN_BLOCKS


def simulate(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.zeros(2, 1, LAYOUT.total)
    mean[0, 0, 0] = mean[1, 0, 0] = mean[1, 0, 8] = 1.0
    grads = mean + 0.5 * torch.randn(2, samples, LAYOUT.total, generator=generator)
    return grads, torch.ones(2, samples, dtype=torch.bool)


def test_errors_cover_and_shrink_like_the_root_of_the_samples() -> None:
    def estimate(samples: int, seed: int) -> Estimate:
        return run(MeanCosine(2, LAYOUT), *simulate(samples, seed), chunk=64)

    runs = [estimate(128, seed) for seed in range(100)]
    truth = np.mean([r.overall for r in runs], axis=0)
    covered = np.mean([np.abs(r.overall - truth) <= 2 * r.overall_error for r in runs], axis=0)
    assert (covered >= 0.88).all()
    spread = np.std([r.overall for r in runs], axis=0)
    claimed = np.mean([r.overall_error for r in runs], axis=0)
    np.testing.assert_allclose(claimed, spread, rtol=0.3)
    quarter = np.mean([estimate(32, seed).overall_error for seed in range(30)], axis=0)
    np.testing.assert_allclose(quarter / claimed, 2.0, rtol=0.15)


@pytest.mark.parametrize("normalize", ["none", "elementwise", "per_tensor"])
def test_pairs_are_disjoint_and_compared_in_both_orders(normalize: str) -> None:
    grads, labelled = gradients(2, 6)
    labelled[:] = True
    found = run(PairedSimilarity(2, LAYOUT, normalize), grads, labelled)

    def value(t: int, i: int, s: int, j: int) -> float:
        return similarity(grads[t, i], grads[s, j], normalize, LAYOUT.sizes).item()

    pairs = [(0, 1), (2, 3), (4, 5)]
    off = [(value(0, i, 1, j) + value(1, i, 0, j)) / 2 for i, j in pairs]
    own = [value(0, i, 0, j) for i, j in pairs]
    assert found.overall[0, 1] == pytest.approx(np.mean(off))
    assert found.overall[1, 0] == found.overall[0, 1]
    assert found.overall[0, 0] == pytest.approx(np.mean(own))
    assert found.overall_error[0, 1] == pytest.approx(np.std(off, ddof=1) / math.sqrt(3))


def test_pairs_wait_for_labels() -> None:
    grads, labelled = gradients(2, 6)
    labelled[0] = torch.tensor([True, False, False, True, False, True])
    labelled[1] = torch.tensor([False, False, True, False, True, False])
    found = run(PairedSimilarity(2, LAYOUT, "none"), grads, labelled)
    values = [similarity(grads[0, i], grads[1, j], "none").item() for i, j in ((0, 2), (3, 4))]
    assert found.overall[0, 1] == pytest.approx(np.mean(values))
    assert found.overall[0, 0] == pytest.approx(similarity(grads[0, 0], grads[0, 3], "none").item())
    assert math.isnan(found.overall_error[0, 0])


def test_per_level_of_a_pair() -> None:
    grads, labelled = gradients(2, 2)
    found = run(PairedSimilarity(2, LAYOUT, "elementwise"), grads, labelled)
    expected = similarity(grads[0, 0, 7:], grads[0, 1, 7:], "elementwise").item()
    assert found.per_level[2, 0, 0] == pytest.approx(expected)
    assert (found.per_level[1] == 0).all()
