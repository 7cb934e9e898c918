"""Fréchet and kernel distance, precision, recall, density, coverage: against slow references, streamed and merged."""

from __future__ import annotations

import itertools
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from clade.errors import CladeError, DataError
from clade.metrics import (
    FrechetDistance,
    KernelDistance,
    Manifold,
    SegmentationScore,
    Statistics,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)

DIM = 12


def features(count: int, seed: int, shift: float = 0.0, dim: int = DIM) -> torch.Tensor:
    """Correlated, of Inception's size: about 0.4, never negative."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)) / dim**0.5
    return (torch.randn(count, dim, generator=generator) @ mixing * 0.3 + 0.4 + shift).relu()


# --- Against independent computations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [False, True], ids=["", "dead features"])
@pytest.mark.parametrize(("count", "real_count"), [(150, 200), (5, 6), (5, 200), (200, 5)])
def test_the_frechet_distance_is_that_of_scipy_and_torch_fidelity(count: int, real_count: int, dead: bool) -> None:
    a, b = features(count, 0), features(real_count, 1, shift=0.1)
    if dead:  # a feature that no picture has
        a[:, 3] = b[:, 3] = 0
    ours = frechet_distance(Statistics.of(a), Statistics.of(b))

    x, y = a.double().numpy(), b.double().numpy()
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy finds some of the products singular
        root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)
    assert ours == pytest.approx(expected, abs=1e-6)

    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], abs=1e-5)


def test_the_frechet_distance_of_two_gaussians_along_a_line_is_known() -> None:
    a = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0)).double()
    a = (a - a.mean()) / a.std()
    ours = frechet_distance(Statistics.of(2 * a), Statistics.of(5 * a + 7))
    assert ours == pytest.approx(7**2 + (5 - 2) ** 2)


def test_a_set_has_no_distance_to_itself_even_with_few_pictures_and_large_means() -> None:
    few = Statistics.of(features(4, 0, shift=1000.0))
    assert abs(frechet_distance(few, few)) < 1e-6


def slow_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_the_kernel_distance_is_the_mean_over_all_pairs() -> None:
    a, b = features(17, 0), features(23, 1, shift=0.05)
    assert kernel_distance(a, b) == pytest.approx(slow_mmd(a.double().numpy(), b.double().numpy()), rel=1e-9)


def test_kernel_blocks_do_not_change_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features(17, 0), features(23, 1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr("clade.metrics.kernel._ROWS", 4)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-9)


def test_subsets_are_those_of_torch_fidelity() -> None:
    fake, real = features(60, 0), features(50, 1, shift=0.05)
    theirs = kid_features_to_metric(fake, real, kid_subsets=7, kid_subset_size=30, rng_seed=5, verbose=False)
    metric = KernelDistance(DIM, Statistics.of(real), subsets=7, subset_size=30, seed=5)
    metric.update(fake)
    ours = metric.compute()
    assert float(ours["kernel_mean"]) == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-6)
    assert float(ours["kernel_std"]) == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-6)


def slow_manifold(fake: np.ndarray, real: np.ndarray, k: int, density_k: int) -> tuple[float, ...]:
    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(x: np.ndarray, neighbours: int) -> list[float]:
        return [sorted(apart(a, b) for j, b in enumerate(x) if j != i)[neighbours - 1] for i, a in enumerate(x)]

    def covered(x: np.ndarray, by: np.ndarray) -> float:
        near = radius(by, k)
        return float(np.mean([any(apart(a, b) <= r for b, r in zip(by, near, strict=True)) for a in x]))

    near = radius(real, density_k)
    inside = np.array([[apart(a, b) < r for b, r in zip(real, near, strict=True)] for a in fake])
    return covered(fake, real), covered(real, fake), inside.sum() / (density_k * len(fake)), inside.any(0).mean()


@pytest.mark.parametrize("shift", [0.0, 0.2, 3.0])
def test_the_manifold_scores_are_those_of_a_slow_loop_and_of_torch_fidelity(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clade.metrics.manifold._ROWS", 7)
    fake, real = features(31, 0, shift), features(40, 1)
    metric = Manifold(DIM, Statistics.of(real))
    metric.update(fake)
    ours = metric.compute()
    names = ("precision", "recall", "density", "coverage")
    expected = slow_manifold(fake.double().numpy(), real.double().numpy(), 3, 5)
    assert [float(ours[name]) for name in names] == pytest.approx(expected)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=100, verbose=False)
    assert float(ours["precision"]) == pytest.approx(theirs["precision"])
    assert float(ours["recall"]) == pytest.approx(theirs["recall"])


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    a = features(30, 0).double()
    assert precision_recall(a, a) == (1.0, 1.0)
    assert density_coverage(a, a)[1] == 1.0
    assert precision_recall(a, a + 100) == (0.0, 0.0)
    assert density_coverage(a, a + 100) == (0.0, 0.0)


# --- Streaming --------------------------------------------------------------------------------------------------------


def metrics() -> dict[str, FrechetDistance | KernelDistance | Manifold]:
    return {
        "frechet": FrechetDistance(DIM),
        "kernel": KernelDistance(DIM, subsets=5, subset_size=8),
        "manifold": Manifold(DIM),
    }


def values(made: dict[str, FrechetDistance | KernelDistance | Manifold]) -> dict[str, torch.Tensor]:
    return {f"{name}/{key}": value for name, metric in made.items() for key, value in metric.compute().items()}


def all_at_once() -> dict[str, torch.Tensor]:
    made = metrics()
    for metric in made.values():
        metric.update(features(20, 0))
        metric.update(features(25, 1, 0.1), real=True)
    return values(made)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert float(value) == pytest.approx(float(other[key]), rel=1e-9, abs=1e-12), key


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    made = metrics()
    for metric in made.values():
        for part in features(20, 0).split(batch_size):
            metric.update(part)
        for part in features(25, 1, 0.1).split(batch_size):
            metric.update(part, real=True)
    assert_same(values(made), all_at_once())


def test_states_that_are_merged_are_those_of_all_pictures() -> None:
    """Also where the parts come in another order than the pictures."""
    made = metrics()
    fake, real = features(20, 0), features(25, 1, 0.1)
    for name, metric in made.items():
        other = metrics()[name]
        for part, rows in ((other, slice(0, 12)), (metric, slice(12, 20))):
            numbers = {} if name == "frechet" else {"numbers": range(20)[rows]}
            part.update(fake[rows], **numbers)
        metric.update(real, real=True)
        metric.merge_state(other)
    assert_same(values(made), all_at_once())


def test_given_statistics_are_as_good_as_the_pictures() -> None:
    real = Statistics.of(features(25, 1, 0.1))
    made = {
        "frechet": FrechetDistance(DIM, real),
        "kernel": KernelDistance(DIM, real, subsets=5, subset_size=8),
        "manifold": Manifold(DIM, real),
    }
    for metric in made.values():
        metric.update(features(20, 0))
        with pytest.raises(CladeError, match="given to the metric as a whole"):
            metric.update(features(2, 1), real=True)
    assert_same(values(made), all_at_once())


def test_reset_forgets_everything() -> None:
    made = metrics()
    for metric in made.values():
        metric.update(features(9, 7))
        metric.update(features(9, 8), real=True)
        metric.reset()
        metric.update(features(20, 0))
        metric.update(features(25, 1, 0.1), real=True)
    assert_same(values(made), all_at_once())


def one_of_two(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for case in CASES:
        made = metrics()
        for metric in made.values():
            for count, seed, shift, real in ((20, 0, 0.0, False), (25, 1, 0.1, True)):
                mine = features(count, seed, shift)[slice(rank, None, 2)]
                if case == "one has all":
                    mine = features(count, seed, shift)[: 0 if rank else None]
                numbers = None if case == "shared" else range(len(mine))
                for start in range(0, len(mine), 4):
                    part = mine[start : start + 4]
                    if numbers is None or isinstance(metric, FrechetDistance):
                        metric.update(part, real)
                    else:
                        metric.update(part, real, numbers[start : start + 4])
        segmentation = SegmentationScore(3)
        segmentation.update(torch.tensor([[rank, 1, 2]]), torch.tensor([[0, 1, 255]]))
        scores = segmentation.compute()
        found = values(made) | {"miou": scores["miou"], "pixels": scores["pixels"]}
        save_file({key: value.reshape(1) for key, value in found.items()}, folder / f"{case} {rank}.safetensors")
    dist.destroy_process_group()


CASES = ("shared", "one has all")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Pictures dealt in turn; and one process without any, as where there are more processes than pictures."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clade.metrics.frechet", "scipy.linalg", "torch_fidelity"])
    processes = [context.Process(target=one_of_two, args=(tmp_path, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for case, rank in itertools.product(CASES, range(2)):
        found = load_file(tmp_path / f"{case} {rank}.safetensors")
        # (0, 1) and (1, 1) against (0, 1): class 0 has 1 of 2, class 1 has 2 of 3.
        assert found.pop("miou").item() == pytest.approx((1 / 2 + 2 / 3) / 2)
        assert found.pop("pixels").item() == 4
        assert_same(found, all_at_once())


# --- Few pictures, wrong input ----------------------------------------------------------------------------------------


def test_few_pictures_are_said_to_bias() -> None:
    metric = FrechetDistance(DIM, Statistics.of(features(50, 1)))
    metric.update(features(DIM, 0))
    assert {key: int(metric.compute()[key]) for key in ("count", "real_count")} == {"count": DIM, "real_count": 50}
    assert len(metric.notes) == 1
    assert f"{DIM} generated pictures for {DIM} features" in metric.notes[0]
    metric.update(features(1, 3))
    metric.compute()
    assert metric.notes == ()


@pytest.mark.parametrize("name", ["frechet", "kernel", "manifold"])
def test_too_few_pictures_are_refused(name: str) -> None:
    metric = metrics()[name]
    metric.update(features(1, 0))
    metric.update(features(20, 1), real=True)
    with pytest.raises(DataError, match=r"1 pictures came; .* needs at least"):
        metric.compute()


def test_other_features_are_refused() -> None:
    for metric in metrics().values():
        with pytest.raises(CladeError, match=r"Features of shape \(2, 5\)"):
            metric.update(torch.zeros(2, 5))
        with pytest.raises(CladeError, match="not finite"):
            metric.update(torch.full((2, DIM), float("nan")))
    with pytest.raises(CladeError, match="length 12 and 5"):
        frechet_distance(Statistics.of(features(9, 0)), Statistics.of(torch.rand(9, 5)))
    with pytest.raises(CladeError, match="Take one extractor"):
        KernelDistance(5, Statistics.of(features(9, 0)))


@pytest.mark.parametrize("count", [20, 200])  # few and many: torch.cdist computes them in different ways
def test_equal_pictures_lie_on_the_rim_however_distances_are_rounded(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    several = torch.randn(count, 512, generator=generator) * 0.3 + 100
    assert precision_recall(several, several.clone()) == (1, 1)
    assert density_coverage(several, several.clone()) == (1, 1)
    constant = several[:1].expand(count, -1).contiguous()
    assert precision_recall(constant, constant.clone()) == (1, 1)
    assert density_coverage(constant, constant.clone()) == (0, 0)
