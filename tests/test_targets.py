"""Noise against the moments it claims, exactly where a linear map of N(0, I) has them, by sampling elsewhere."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from memlib import data
from memlib.errors import Refused
from memlib.papers.i2i import targets


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").images[:600].double()


def drawn(target, n=20_000, seed=0):
    return target(n, torch.Generator().manual_seed(seed)).flatten(1)


def generating_matrix(target, size, monkeypatch):
    """The affine map z -> mean + A z of a target, read off by giving it unit vectors for noise: mean, A A^T."""
    basis = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()
    monkeypatch.setattr(targets, "noise_from", lambda generator: lambda like: basis.to(like))
    made = target(size + 1, torch.Generator()).flatten(1)
    columns = made[1:] - made[0]  # (D, D), row i is A e_i
    return made[0], columns.T @ columns


def test_gaussian_is_standard_normal_whatever_the_images(digits):
    target = targets.gaussian(digits)
    x = drawn(target)
    assert target(3, torch.Generator().manual_seed(0)).shape == (3, 1, 8, 8) and x.dtype == torch.float64
    assert stats.kstest(x.flatten()[:50_000].numpy(), "norm").pvalue > 1e-3
    assert (x.T.cov() - torch.eye(64)).abs().max() < 6 / math.sqrt(20_000)
    torch.testing.assert_close(drawn(targets.gaussian(digits, 0.5)), 0.5 * x)


def test_uniform_is_the_papers_and_can_be_matched_in_variance(digits):
    x = drawn(targets.uniform(digits)).flatten()[:50_000]
    assert stats.kstest(x.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert drawn(targets.uniform(digits)).var().item() == pytest.approx(1 / 3, rel=0.01)
    assert drawn(targets.uniform(digits, math.sqrt(3))).var().item() == pytest.approx(1, rel=0.01)


def test_covariance_is_that_of_the_images(digits, monkeypatch):
    mean, sigma = generating_matrix(targets.covariance(digits), 64, monkeypatch)
    want = torch.from_numpy(np.cov(digits.flatten(1).numpy(), rowvar=False))
    torch.testing.assert_close(mean, digits.flatten(1).mean(0))
    assert (sigma - want).abs().max() < 1e-5 * want.diagonal().mean()  # the ridge, without which it is singular
    assert torch.linalg.matrix_rank(want) < 64


def test_covariance_of_samples(digits):
    x = drawn(targets.covariance(digits), 40_000)
    want = digits.flatten(1).T.cov()
    error = (x.T.cov() - want).norm() / want.norm()
    assert error < 0.03 < (torch.eye(64) - want).norm() / want.norm()


@pytest.mark.parametrize("k", [1, 10, 40])
def test_low_rank_is_scikit_learns_probabilistic_pca(digits, k, monkeypatch):
    mean, sigma = generating_matrix(targets.low_rank(digits, k), 64, monkeypatch)
    pca = PCA(k, svd_solver="full").fit(digits.flatten(1).numpy())
    # scikit-learn averages the rest over min(M, D) - k, which is D - k here: Tipping and Bishop's.
    torch.testing.assert_close(sigma, torch.from_numpy(pca.get_covariance()), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(mean, torch.from_numpy(pca.mean_))


def test_low_rank_keeps_the_total_variance_with_fewer_images_than_coordinates(digits, monkeypatch):
    few = digits[:20]
    _, sigma = generating_matrix(targets.low_rank(few, 5), 64, monkeypatch)
    assert sigma.trace().item() == pytest.approx(few.flatten(1).var(0).sum().item())
    values = torch.linalg.eigvalsh(few.flatten(1).T.cov()).flip(0)
    torch.testing.assert_close(torch.linalg.eigvalsh(sigma).flip(0)[:5], values[:5])


def test_low_rank_forms_nothing_of_d_by_d():
    images = torch.randn(12, 3, 128, 128, generator=torch.Generator().manual_seed(0))  # D = 49,152: D x D is 19 GB
    x = targets.low_rank(images, 4)(2, torch.Generator().manual_seed(0))
    assert x.shape == (2, 3, 128, 128) and x.dtype == torch.float32 and x.isfinite().all()


def test_arms_share_their_draw(digits):
    """With the covariance of white images all three are the same noise, up to the estimate."""
    white = torch.randn(50_000, 1, 2, 2, generator=torch.Generator().manual_seed(3)).double()
    plain, exact, low = (
        drawn(t, 500) for t in (targets.gaussian(white), targets.covariance(white), targets.low_rank(white, 2))
    )
    torch.testing.assert_close(exact, plain, rtol=0, atol=0.06)
    torch.testing.assert_close(low, plain, rtol=0, atol=0.06)


def test_a_target_is_a_function_of_its_generator(digits):
    for fit in (targets.gaussian, targets.uniform, targets.covariance, lambda x: targets.low_rank(x, 3)):
        target = fit(digits)
        assert torch.equal(drawn(target, 5), drawn(fit(digits), 5))
        assert not torch.equal(drawn(target, 5), drawn(target, 5, seed=1))


def test_off_diagonal_share(digits):
    want = digits.flatten(1).T.cov()
    share = float(1 - want.diagonal().square().sum() / want.square().sum())
    assert targets.off_diagonal(digits) == pytest.approx(share, rel=1e-9)
    few = digits[:30]  # fewer images than coordinates: by the other product
    want = few.flatten(1).T.cov()
    share = float(1 - want.diagonal().square().sum() / want.square().sum())
    assert targets.off_diagonal(few) == pytest.approx(share, rel=1e-9)
    chance = [targets.off_diagonal(drawn(targets.gaussian(digits), 1000, seed)) for seed in range(20)]
    assert sum(chance) / 20 == pytest.approx(63 / 1065, rel=0.02)  # about D / (M + D), as its docstring says


def test_off_diagonal_by_chance_keeps_the_variances():
    """Two images of two coordinates: variances 1/2 and 2, covariance 1 or -1, so 2 / (1/4 + 4 + 2) in any order."""
    two = torch.tensor([[0.0, 0.0], [1.0, 2.0]]).view(2, 1, 1, 2)
    for seed in range(4):
        assert targets.off_diagonal_by_chance(two, torch.Generator().manual_seed(seed)) == pytest.approx(0.32)


def test_off_diagonal_by_chance_where_nothing_is_independent():
    """One draw in every coordinate, of scale 1 to 10: all correlations are 1, by chance they are 1 / sqrt(M - 1)."""
    scale = torch.linspace(1, 10, 48, dtype=torch.float64)
    images = (torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double() * scale).view(200, 3, 4, 4)
    chance = [targets.off_diagonal_by_chance(images, torch.Generator().manual_seed(seed)) for seed in range(20)]
    v = scale.square()
    off, on = v.sum().square() - v.square().sum(), v.square().sum()
    assert targets.off_diagonal(images) == pytest.approx(float(off / (off + on)))
    assert sum(chance) / 20 == pytest.approx(float(off / 199 / (off / 199 + on)), rel=0.02)
    assert abs(sum(chance) / 20 - 48 / 248) > 0.03  # D / (M + D) is for equal variances
    assert len(set(chance)) == 20 and chance[3] == targets.off_diagonal_by_chance(
        images, torch.Generator().manual_seed(3)
    )


def test_nearly_zero_counts_entries_off_the_diagonal(digits):
    # Three coordinates, M = 2: covariance is the outer product of (2, 1, 0.1) / sqrt(2) with itself.
    two = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.1]]).view(2, 1, 1, 3)
    assert targets.nearly_zero(two) == pytest.approx(2 / 6)  # 1, 0.1 and 0.05, twice each
    assert targets.nearly_zero(-two, 0.11) == pytest.approx(4 / 6)  # the diagonal's 0.005 does not count
    assert targets.nearly_zero(two * torch.tensor([1, -1, 1]), 0.11) == pytest.approx(4 / 6)  # by absolute value
    want = np.cov(digits.flatten(1).numpy(), rowvar=False)
    share = (np.abs(want[~np.eye(64, dtype=bool)]) < 0.02).mean()
    assert 0 < share < 1 and targets.nearly_zero(digits, 0.02) == pytest.approx(share)


def test_refusals(digits):
    with pytest.raises(Refused, match="use low_rank"):
        targets.covariance(torch.zeros(2, 3, 64, 64))
    with pytest.raises(Refused, match="0 principal directions .* 600 images of 64 coordinates: give 1 to 63"):
        targets.low_rank(digits, 0)
    with pytest.raises(Refused, match="give 1 to 9"):
        targets.low_rank(digits[:10], 10)
    with pytest.raises(Refused, match="at least 2 images, not 1"):
        targets.covariance(digits[:1])
    with pytest.raises(Refused, match="all the same"):
        targets.off_diagonal(torch.zeros(3, 1, 2, 2))
    with pytest.raises(Refused, match="all the same"):
        targets.off_diagonal_by_chance(torch.zeros(3, 1, 2, 2), torch.Generator())
    with pytest.raises(Refused, match="use off_diagonal"):
        targets.nearly_zero(torch.zeros(2, 3, 64, 64))
    with pytest.raises(Refused, match="one coordinate"):
        targets.nearly_zero(torch.zeros(2, 1, 1, 1))
