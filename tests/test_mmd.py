"""The maximum mean discrepancy against scikit-learn, torchmetrics, closed forms and its own coverage."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from torchmetrics.image.kid import poly_mmd

from memlib.errors import Refused
from memlib.metrics import kid, median_distance, mmd, mmd2, mmd2_difference, mmd2_p_value


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles that leave ragged ends."""
    monkeypatch.setattr(mmd, "_ROWS", 32)


def by_scikit_learn(a, b, bandwidths, unbiased=True):
    def mean(x, y):
        kernel = sum(rbf_kernel(x, y, gamma=1 / (2 * s**2)) for s in bandwidths)
        if x is y and unbiased:
            return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))
        return kernel.mean()

    a, b = a.double().numpy(), b.double().numpy()
    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    "bandwidths",
    [[1.5], [0.5, 1, 2, 4], [4, 4 / 2**0.5, 2], [1.0, 1.7, 3.0], [2.0, 2.0]],
    ids=["one", "dyadic", "half-dyadic", "others", "twice the same"],
)
def test_equals_scikit_learn(bandwidths, unbiased):
    a, b = normal(70, 5) + 100, normal(45, 5, seed=1) * 1.3 + 100.2
    want = by_scikit_learn(a, b, bandwidths, unbiased)
    assert mmd2(a, b, bandwidths, unbiased) == pytest.approx(want, rel=1e-9)
    assert mmd2(a, b, bandwidths[::-1], unbiased) == pytest.approx(want, rel=1e-9)


def test_dyadic_bandwidths_take_one_exponential(monkeypatch):
    counts, exp, exp_ = [0], torch.Tensor.exp, torch.Tensor.exp_

    def counted(original):
        def call(x):
            counts[0] += 1
            return original(x)

        return call

    monkeypatch.setattr(torch.Tensor, "exp", counted(exp))
    monkeypatch.setattr(torch.Tensor, "exp_", counted(exp_))
    a, b = normal(10, 2), normal(10, 2, seed=1)
    mmd2(a, b, [0.25, 0.5, 1, 2 * 2**0.5])
    assert counts[0] == 3  # one tile each for aa, bb and ab
    mmd2(a, b, [1.0, 1.1])
    assert counts[0] == 3 + 6


def test_a_distant_centre_costs_no_digits():
    a, b = normal(40, 3), normal(50, 3, seed=1) + 0.5
    assert mmd2(a + 1e6, b + 1e6, [1.0, 2.0]) == pytest.approx(mmd2(a, b, [1.0, 2.0]), rel=1e-7)


def test_no_kernel_exceeds_one_at_a_bandwidth_below_rounding():
    rows = 1e3 * normal(40, 3)
    assert abs(mmd2(rows, rows.clone(), 1e-9, unbiased=False)) <= 2


def test_a_float32_set_is_computed_in_float64():
    a, b = normal(60, 8, dtype=torch.float32) + 30, normal(60, 8, seed=1, dtype=torch.float32) + 30.5
    assert mmd2(a, b, 2.0) == pytest.approx(by_scikit_learn(a, b, [2.0]), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_mean_over_draws_is_the_closed_form_for_gaussians(shift):
    # E exp(-|z|^2 / 2 s^2) with z ~ N(m, 2 I) is (s^2 / (s^2 + 2))^(d/2) exp(-|m|^2 / 2 (s^2 + 2)).
    d, s, draws = 3, 1.2, 200
    mu = torch.full((d,), shift, dtype=torch.float64)
    peak = (s**2 / (s**2 + 2)) ** (d / 2)
    want = 2 * peak * (1 - math.exp(-float(mu @ mu) / (2 * (s**2 + 2))))
    x, y = normal(draws, 30, d), normal(draws, 20, d, seed=1) + mu
    values = np.array([mmd2(a, b, s) for a, b in zip(x, y, strict=True)])
    error = values.std(ddof=1) / math.sqrt(draws)
    assert abs(values.mean() - want) < 3.5 * error
    assert error < 0.005
    # Pairs of a row with itself add (1 - E k) (1/30 + 1/20) at least.
    biased = np.mean([mmd2(a, b, s, unbiased=False) for a, b in zip(x, y, strict=True)])
    assert biased - want > 0.04


def test_wide_gaussians_and_the_linear_kernel_are_the_distance_of_means():
    a, b = normal(40, 6), normal(50, 6, seed=1) + 0.5
    want = float((a.mean(0) - b.mean(0)).square().sum())  # Real-Fake eq. 20 in feature space
    assert kid(a, b, degree=1, gamma=1, coef=0, unbiased=False) == pytest.approx(want, rel=1e-12)
    assert 1e3**2 * mmd2(a, b, 1e3, unbiased=False) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("kernel", [{}, {"degree": 2, "gamma": 0.3, "coef": 2.0}])
def test_kid_equals_torchmetrics(kernel):
    a, b = normal(70, 9) + 1, normal(70, 9, seed=1) + 1.2
    assert kid(a, b, **kernel) == pytest.approx(float(poly_mmd(a, b, **kernel)), rel=1e-9)


def test_kid_of_unequal_sets_counts_each_pair_once():
    a, b = normal(40, 4), normal(33, 4, seed=1)
    k = lambda x, y: (x @ y.T / 4 + 1) ** 3  # noqa: E731
    own = [float(k(x, x).sum() - k(x, x).trace()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    assert kid(a, b) == pytest.approx(sum(own) - 2 * float(k(a, b).mean()), rel=1e-10)


def test_the_difference_is_the_difference():
    a, b, reference = normal(50, 3) + 0.4, normal(70, 3, seed=1), normal(60, 3, seed=2)
    value, (low, high) = mmd2_difference(a, b, reference, [1, 2])
    assert value == pytest.approx(mmd2(a, reference, [1, 2]) - mmd2(b, reference, [1, 2]), rel=1e-9)
    assert low < value < high
    swapped, (low2, high2) = mmd2_difference(b, a, reference, [1, 2])
    assert (swapped, low2, high2) == pytest.approx((-value, -high, -low), rel=1e-9)


@pytest.mark.parametrize("sizes", [(150, 150, 40), (120, 30, 50), (40, 120, 200)])
def test_the_interval_of_the_difference_covers(sizes):
    # Population value by the closed form above; each term of the variance matters for one of the sizes.
    d, s, runs = 2, 1.0, 300
    g = torch.Generator().manual_seed(7)
    shifts = (0.9, 0.5, 0.0)
    peak = (s**2 / (s**2 + 2)) ** (d / 2)
    a, b = (2 * peak * (1 - math.exp(-d * m**2 / (2 * (s**2 + 2)))) for m in shifts[:2])
    inside, widths, values = 0, [], []
    for _ in range(runs):
        sets = [torch.randn(n, d, generator=g, dtype=torch.float64) + m for n, m in zip(sizes, shifts, strict=True)]
        value, (low, high) = mmd2_difference(*sets, s, level=0.9)
        inside += low <= a - b <= high
        widths.append(high - low)
        values.append(value)
    assert 0.85 <= inside / runs <= 0.95  # three standard errors of a fraction of 0.9 are 0.052
    assert np.mean(widths) == pytest.approx(2 * 1.645 * np.std(values), rel=0.12)


def test_p_values_are_uniform_without_and_small_with_a_difference():
    g = torch.Generator().manual_seed(0)
    same = [mmd2_p_value(normal(18, 2, seed=i), normal(12, 2, seed=1000 + i), 1.0, 19, g) for i in range(150)]
    fraction = np.mean(np.array(same) <= 0.2)
    assert 0.1 <= fraction <= 0.3  # three standard errors are 0.098
    assert mmd2_p_value(normal(60, 2), normal(50, 2, seed=1) + 0.8, 1.0, 199, g) == 1 / 200


def test_p_value_equals_an_enumeration_of_all_splits():
    from itertools import combinations

    a, b = normal(5, 2), normal(4, 2, seed=3) + 0.5
    rows = torch.cat((a, b))
    want = []
    for chosen in combinations(range(9), 5):
        rest = [i for i in range(9) if i not in chosen]
        want.append(by_scikit_learn(rows[list(chosen)], rows[rest], [1.0]))
    exact = np.mean(np.array(want) >= by_scikit_learn(a, b, [1.0]) - 1e-12)
    found = mmd2_p_value(a, b, 1.0, 4000, torch.Generator().manual_seed(0))
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))


def test_median_distance_of_gaussians():
    # |x - y|^2 / 2 is chi-square with 4 degrees of freedom, whose median is 3.3567.
    found = median_distance(normal(2000, 4), normal(1000, 4, seed=1), generator=torch.Generator().manual_seed(0))
    assert found == pytest.approx(math.sqrt(2 * 3.3567), rel=0.02)
    corners = torch.tensor([[0.0], [3.0]])
    # 6 of 10 pairs are 3 apart; with pairs of a row with itself it would be 12 of 25.
    assert median_distance(corners[[0, 0]], corners[[1, 1, 1]], generator=torch.Generator().manual_seed(0)) == 3.0


@pytest.mark.parametrize("bandwidths", [[], 0.0, [1.0, -1.0], math.inf, math.nan])
def test_bandwidths_are_positive(bandwidths):
    with pytest.raises(Refused, match="bandwidths are one or more positive distances"):
        mmd2(normal(5, 2), normal(5, 2), bandwidths)


@pytest.mark.parametrize("metric", [lambda a, b: mmd2(a, b, 1.0), kid, lambda a, b: mmd2_p_value(a, b, 1.0)])
def test_refusals(metric):
    with pytest.raises(Refused, match=r"second features must have shape \(N, 3\), not \(5, 2\)"):
        metric(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(Refused, match="first features have 1 rows"):
        metric(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(Refused, match="second row 1 is not finite"):
        metric(torch.zeros(2, 1), torch.tensor([[0.0], [torch.inf]]))
