"""Intervals against published examples, SciPy and their exact coverage."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from memlib.errors import Refused
from memlib.metrics import Count, auc, mean_interval, paired_interval, ratio_interval
from memlib.metrics.intervals import difference_of_pairs, ratio_of_pairs


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_ratio_interval_against_a_published_example():
    # Koopman 1984: 36 of 40 against 16 of 80.
    assert ratio_interval(Count(36, 40), Count(16, 80)) == pytest.approx((2.94, 7.15), abs=0.01)


def test_ratio_interval_nears_scipys_for_large_counts_and_inverts():
    a, b = Count(4000, 50_000), Count(2500, 50_000)
    katz = scipy.stats.contingency.relative_risk(a.k, a.n, b.k, b.n).confidence_interval(0.9)
    assert ratio_interval(a, b, 0.9) == pytest.approx(katz, rel=1e-3)
    low, high = ratio_interval(Count(3, 40), Count(9, 50))
    assert ratio_interval(Count(9, 50), Count(3, 40)) == pytest.approx((1 / high, 1 / low))


def test_ratio_interval_at_zero_and_at_all():
    low, high = ratio_interval(Count(20, 2000), Count(0, 2000))
    assert 1 < low < 20 and high == math.inf
    assert ratio_interval(Count(0, 2000), Count(20, 2000)) == pytest.approx((0, 1 / low))
    assert ratio_interval(Count(0, 10), Count(0, 10)) == (0, math.inf)
    low, high = ratio_interval(Count(10, 10), Count(10, 10))
    assert 0.6 < low < 1 < high < 1.6 and low * high == pytest.approx(1)
    with pytest.raises(Refused, match="3/2"):
        ratio_interval(Count(3, 2), Count(1, 2))


def test_ratio_interval_covers():
    # Exact coverage at small counts: the sum over all tables of those whose interval holds the true ratio.
    n, p_a, p_b = 30, 0.2, 0.1
    chance = np.outer(scipy.stats.binom.pmf(range(n + 1), n, p_a), scipy.stats.binom.pmf(range(n + 1), n, p_b))
    held = 0.0
    for i in range(16):
        for j in range(12):
            low, high = ratio_interval(Count(i, n), Count(j, n))
            held += chance[i, j] * (low <= p_a / p_b <= high)
    assert 0.93 < held < 0.98


def test_paired_interval_nears_the_normal_one_and_uses_the_pairing():
    shared = normal(2000)
    a, b = shared + 0.1 * normal(2000, seed=1) + 1, shared + 0.1 * normal(2000, seed=2)
    low, high = paired_interval(a, b, generator=torch.Generator().manual_seed(0))
    mean, half = float((a - b).mean()), 1.96 * float((a - b).std()) / math.sqrt(2000)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)
    ratio = paired_interval(a + 9, b + 9, "ratio", generator=torch.Generator().manual_seed(0))
    assert ratio == pytest.approx((1 + low / 9, 1 + high / 9), abs=0.005)  # mean(b) is near 9
    again = paired_interval(a, b, generator=torch.Generator().manual_seed(0))
    assert again == (low, high) != paired_interval(a, b, generator=torch.Generator().manual_seed(1))


def test_paired_interval_of_hits():
    hits, none = torch.tensor([True] * 20 + [False] * 80), torch.zeros(100, dtype=torch.bool)
    g = torch.Generator().manual_seed(0)
    low, high = paired_interval(hits, none, "ratio", generator=g)
    assert 4 < low < 7 and high == math.inf
    low, high = paired_interval(hits, none, generator=g)
    assert 0.1 < low < 0.15 and 0.25 < high < 0.3
    for wrong in (dict(b=none[:9]), dict(b=none, statistic="odds")):
        with pytest.raises(Refused):
            paired_interval(hits, **wrong)


def test_mean_interval_equals_scipy():
    values = [0.2, 0.5, 0.35]
    want = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx(tuple(want))
    assert mean_interval(values, 0.9, (0, 0.5)) == pytest.approx((want.low, 0.5))
    with pytest.raises(Refused, match="at least 2"):
        mean_interval([1.0])
    with pytest.raises(Refused, match="finite values, not"):
        mean_interval([1.0, math.nan])
    with pytest.raises(Refused, match="values from 0.2 to 1.5 leave the bounds 0 and 1"):
        mean_interval([0.2, 1.5], bounds=(0, 1))


@pytest.mark.parametrize("count", [2, 3, 20])
def test_equal_values_leave_a_width(count):
    """Two runs of 0.02 do not show that the mean lies above 0."""
    assert mean_interval([0.02] * count) == (-math.inf, math.inf)
    assert mean_interval([0.3, 0.1 + 0.2]) == (-math.inf, math.inf)  # equal up to rounding
    low, high = mean_interval([0.02] * count, bounds=(-1, 1))
    agree = 0.025 ** (1 / count)  # Clopper and Pearson, all of `count`
    assert (low, high) == pytest.approx((0.02 * agree - (1 - agree), 0.02 * agree + 1 - agree))
    assert low < 0
    assert mean_interval([1.0] * count, bounds=(-1, 1))[0] > 0 or count < 6  # as in a sign test
    constant = paired_interval(torch.full((count,), 0.75), torch.full((count,), 0.25))
    assert constant == pytest.approx((0.5 * agree - (1 - agree), 0.5 * agree + 1 - agree))
    assert paired_interval(torch.full((count,), 9.0), torch.full((count,), 2.5)) == (-math.inf, math.inf)


def test_pairs_of_zeros_and_ones():
    zeros = torch.zeros(100)
    z2 = scipy.stats.chi2.ppf(0.95, 1)
    assert paired_interval(zeros, zeros) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    assert paired_interval(zeros, zeros, "ratio") == (0, math.inf)
    assert paired_interval(zeros.bool(), zeros.bool()) == paired_interval(zeros, zeros)
    ones = torch.ones(100)
    assert paired_interval(ones, zeros) == pytest.approx(((100 - z2) / (100 + z2), 1))
    assert paired_interval(ones, ones, "ratio") == pytest.approx((100 / (100 + z2), 1 + z2 / 100))
    low, high = paired_interval(zeros, ones)
    assert (-high, -low) == pytest.approx(paired_interval(ones, zeros))
    for wrong in (torch.full((100,), math.nan), torch.full((100,), math.inf)):
        with pytest.raises(Refused, match=r"row 0 of the paired values, .* is not finite"):
            paired_interval(wrong, zeros)
    with pytest.raises(Refused, match="1 resample or more, not 0"):
        paired_interval(normal(5), normal(5), resamples=0)


def tango_as_a_quartic(n, b, c, level):
    """The ends as roots of a polynomial: (b - c - n D)^2 = z^2 variance, squared once more to lose the root."""
    z2 = scipy.stats.chi2.ppf(level, 1)
    d = np.polynomial.Polynomial([0, 1])
    linear, gap = (2 * n - b + c) * d - b - c, b - c - n * d
    # gap^2 / z^2 = (root - linear) / 2 + n D (1 - D), with root^2 = linear^2 + 8 n c D (1 - D)
    rest = 2 * gap**2 / z2 + linear - 2 * n * d * (1 - d)
    roots = (rest**2 - linear**2 - 8 * n * c * d * (1 - d)).roots()
    real = np.sort(roots[np.abs(roots.imag) < 1e-7].real)
    kept = [x for x in real if -1 - 1e-9 <= x <= 1 + 1e-9 and rest(x) >= -1e-6]
    return min(kept), max(kept)


@pytest.mark.parametrize(("n", "b", "c"), [(160, 40, 20), (44, 9, 1), (100, 7, 0), (30, 2, 11)])
def test_tangos_interval_is_that_of_its_quartic(n, b, c):
    got = difference_of_pairs(3, b, c, n)
    assert got == pytest.approx(tango_as_a_quartic(n, b, c, 0.95), abs=1e-7)


@pytest.mark.parametrize(("both", "first", "second", "n"), [(5, 9, 3, 60), (0, 4, 2, 50), (12, 0, 7, 40)])
def test_the_ratio_of_pairs_is_the_score_interval_of_a_fitted_table(both, first, second, n):
    """At an end, the squared score over its variance under the most likely table with that ratio is z^2."""

    def fitted(ratio):
        def unlikely(p):
            p11, p21 = p
            p12 = ratio * (p11 + p21) - p11
            cells = np.array([p11, p12, p21, 1 - p11 - p12 - p21])
            counts = np.array([both, first, second, n - both - first - second])
            return 1e9 if (cells < 0).any() else -(counts * np.log(np.maximum(cells, 1e-300))).sum()

        starts = [(0.3 * x, y) for x in (0.1, 0.3, 0.6) for y in (0.05, 0.2)]
        best = min((scipy.optimize.minimize(unlikely, s, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-14,
                    "maxiter": 4000}) for s in starts), key=lambda found: found.fun)  # fmt: skip
        p11, p21 = best.x
        return (both + first - ratio * (both + second)) ** 2 / (n * ratio * ((ratio - 1) * p11 + (ratio + 1) * p21))

    for end in ratio_of_pairs(both, first, second, n):
        if 0 < end < math.inf:
            assert fitted(end) == pytest.approx(scipy.stats.chi2.ppf(0.95, 1), rel=1e-3)


def coverage(interval, n, rates, true):
    """Exact coverage of an interval of two independent counts: the sum over all tables."""
    chances = [scipy.stats.binom.pmf(range(13), n, rate) for rate in rates]
    held = 0.0
    for i, j in np.ndindex(13, 13):
        if (chance := chances[0][i] * chances[1][j]) > 1e-7:
            low, high = interval(i, j)
            held += chance * (low <= true <= high)
    return held


SMALL = [(0.02, 0.005), (0.02, 0.02), (0.005, 0.005)]


@pytest.mark.parametrize("rates", SMALL)
def test_intervals_cover_at_small_rates(rates):
    """Exactly, for 100 samples each. Where 95 % is claimed, a bootstrap covered 86 %."""
    a, b = rates
    n = 100

    def of_areas(i, j):
        return auc(*(torch.arange(n) < k for k in (i, j)))[1]

    assert coverage(lambda i, j: Count(i, n).interval(), n, rates, a) >= 0.95
    assert coverage(of_areas, n, rates, 0.5 + (a - b) / 2) >= 0.94
    assert coverage(lambda i, j: ratio_interval(Count(i, n), Count(j, n)), n, rates, a / b) >= 0.91  # as documented


@pytest.mark.parametrize("rates", SMALL)
@pytest.mark.parametrize("n", [100, 200])
def test_intervals_of_pairs_cover_at_small_rates(rates, n):
    """Exactly, over the tables of pairs: both, the first alone, the second alone."""
    a, b = rates
    cells = [a * b, a * (1 - b), b * (1 - a)]
    table = scipy.stats.multinomial(n, [*cells, 1 - sum(cells)])
    held = dict.fromkeys(("difference", "ratio"), 0.0)
    for both, first, second in np.ndindex(2, 14, 12):
        chance = table.pmf([both, first, second, n - both - first - second])
        if chance > 1e-6:
            for name, found, true in (("difference", difference_of_pairs, a - b), ("ratio", ratio_of_pairs, a / b)):
                low, high = found(both, first, second, n)
                held[name] += chance * (low <= true <= high)
    assert held["difference"] >= 0.935 and held["ratio"] >= 0.91


@pytest.mark.parametrize(("runs", "rate"), [(3, 0.02), (3, 0.005), (5, 0.005)])
def test_means_over_runs_cover_at_small_rates(runs, rate):
    """Exactly, for rates of 100 samples a run; without a width for equal runs, 75 to 95 %."""
    chances = scipy.stats.binom.pmf(range(8), 100, rate)
    held = 0.0
    for counts in np.ndindex(*[8 if runs == 3 else 4] * runs):
        chance = float(np.prod(chances[list(counts)]))
        if chance > 1e-7:
            low, high = mean_interval([k / 100 for k in counts], bounds=(0, 1))
            held += chance * (low <= rate <= high)
    assert held >= 0.97


def test_a_ratio_of_arms_that_never_vary_decides_nothing():
    assert paired_interval([0.02] * 5, [0.01] * 5, "ratio") == (0.0, math.inf)
