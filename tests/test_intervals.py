"""Intervals against published examples, SciPy and their exact coverage."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from memlib.errors import Refused
from memlib.metrics import Count, mean_interval, paired_interval, ratio_interval


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
    assert paired_interval(hits, none, "ratio", generator=g) == (math.inf, math.inf)
    low, high = paired_interval(hits, none, generator=g)
    assert 0.1 < low < 0.15 and 0.25 < high < 0.3
    for wrong in (dict(b=none[:9]), dict(b=none, statistic="odds")):
        with pytest.raises(Refused):
            paired_interval(hits, **wrong)


def test_mean_interval_equals_scipy():
    values = [0.2, 0.5, 0.35]
    want = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx(tuple(want))
    assert mean_interval([0.7, 0.7, 0.7]) == (0.7, 0.7)  # to the bit, though their float64 mean is not 0.7
    with pytest.raises(Refused, match="at least 2"):
        mean_interval([1.0])
