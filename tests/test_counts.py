"""Counts by hand and by their defining tails; thresholds; the ROC curve and its area against scikit-learn."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from memlib import metrics
from memlib.errors import Refused
from memlib.metrics import (
    Count,
    ams,
    auc,
    in_band,
    matches,
    nearest,
    roc,
    threshold,
    top_means,
    tpr_at_fpr,
    ums,
)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Cosines of three samples with four training images; the rows of `train` are axes, so a sample is its own similarity.
TABLE = torch.tensor([[0.70, 0.65, 0.10, 0.05], [0.66, 0.70, 0.05, 0.20], [0.10, 0.00, 0.30, 0.20]]).double()


def from_table():
    rest = (1 - TABLE.square().sum(1, keepdim=True)).sqrt()  # a fifth axis makes every sample one long
    return torch.cat((TABLE, rest), 1), torch.eye(5, dtype=torch.float64)[:4]


def test_ams_and_both_readings_of_ums_by_hand():
    queries, train = from_table()
    similarity, index = nearest(queries, train)
    torch.testing.assert_close(similarity[:, 0], TABLE.amax(1))
    assert ams(similarity, 0.6) == ams(similarity[:, 0], 0.6) == Count(2, 3)
    assert ums(index[in_band(similarity, 0.6)], 3) == Count(2, 3)
    pairs = matches(queries, train, 0.6)
    assert torch.stack(pairs, 1).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert ums(pairs[1], 3) == Count(2, 3)
    # Only the first sample: one match by its best, two by all pairs, so UMS exceeds AMS and even n.
    pairs = matches(queries[:1], train, 0.6)
    assert ums(index[:1], 1) == ams(similarity[:1], 0.6) == Count(1, 1)
    assert ums(pairs[1], 1) == Count(2, 1) and ums(pairs[1], 1).rate == 2.0
    with pytest.raises(Refused, match="2/1 is not a proportion and has no binomial interval"):
        ums(pairs[1], 1).interval()
    # Two samples of one image: UMS counts it once.
    assert ums(torch.tensor([[4], [4]]), 2) == Count(1, 2)


def test_bands_are_half_open_and_closed_at_one():
    similarity = torch.tensor([0.4, 0.5, 0.6, 1.0, 1.0 + 1e-7])
    assert ams(similarity, 0.4, 0.5) == ams(similarity, 0.5, 0.6) == Count(1, 5)
    assert ams(similarity, 0.6, 1.0) == ams(similarity, 0.6) == Count(3, 5)


def test_a_miss_is_no_image():
    """Two distinct members among four samples, one of which hits none."""
    assert ums(torch.tensor([0, -1, 5, 5]), 4) == Count(2, 4)
    assert ums([-1, -1], 2) == Count(0, 2)
    with pytest.raises(Refused, match="-2 is no training index"):
        ums(torch.tensor([0, -2]), 2)


@pytest.mark.parametrize("metric", [ams, in_band, top_means, threshold, tpr_at_fpr])
def test_nan_is_not_counted_as_small_or_large(metric):
    values = torch.tensor([0.1, math.nan, 0.3, 0.2])
    rest = {ams: (0.2,), in_band: (0.2,), top_means: (), threshold: (0.5,), tpr_at_fpr: (torch.zeros(100),)}[metric]
    with pytest.raises(Refused, match="NaN"):
        metric(values, *rest)


def test_ums_refuses_what_is_no_index():
    for wrong in (torch.tensor([True, False]), torch.tensor([0.7])):
        with pytest.raises(Refused, match="indices"):
            ums(wrong, 2)


def test_ams_refuses_a_matrix_and_an_empty_band():
    with pytest.raises(Refused, match=r"\(2, 3\)"):
        ams(torch.ones(2, 3), 0.5)
    with pytest.raises(Refused, match="empty"):
        ams(torch.ones(2), 0.5, 0.5)


@pytest.mark.parametrize(("k", "n"), [(0, 40), (1, 40), (17, 40), (40, 40), (3, 50_000)])
def test_clopper_pearson_by_its_defining_tails(k, n):
    low, high = Count(k, n).interval(0.9)
    if k:
        assert scipy.stats.binom.sf(k - 1, n, low) == pytest.approx(0.05)
    else:
        assert low == 0
    if k < n:
        assert scipy.stats.binom.cdf(k, n, high) == pytest.approx(0.05)
    else:
        assert high == 1


@pytest.mark.parametrize(
    "interval",
    [
        lambda level: Count(3, 40).interval(level),
        lambda level: auc([1.0, 2.0], [0.0, 1.5], level),
        lambda level: metrics.ratio_interval(Count(3, 40), Count(5, 40), level),
        lambda level: metrics.paired_interval([0, 1, 1], [0, 0, 1], level=level),
        lambda level: metrics.paired_interval([0.1, 0.4, 0.2], [0.0, 0.0, 0.3], level=level),
        lambda level: metrics.mean_interval([0.1, 0.2], level),
        lambda level: metrics.unique_difference([0, 1, -1], [2, 2, -1], level),
        lambda level: metrics.mmd2_difference(normal(9, 2), normal(9, 2, seed=1), normal(9, 2, seed=2), 1.0, level),
    ],
)
def test_a_level_in_percent_is_refused(interval):
    interval(0.9)
    with pytest.raises(Refused, match="a confidence level is a fraction between 0 and 1, not 95: give 0.95"):
        interval(95)
    for level in (0, 1, -0.5):
        with pytest.raises(Refused, match="such as 0.95"):
            interval(level)


@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, lambda a: np.flip(np.flip(a)), tuple])
def test_numpy_arrays_and_lists_will_do(make):
    values, others = np.array([0.25, 0.5, 0.75, 0.125]), np.arange(100) / 100
    given = [make(part) for part in (values, others)]
    tensors = torch.from_numpy(values), torch.from_numpy(others)
    assert tpr_at_fpr(*given, 0.05) == tpr_at_fpr(*tensors, 0.05)
    assert auc(*given) == auc(*tensors) and ams(given[0], 0.5) == Count(2, 4)
    assert threshold(given[1], 0.05) == threshold(tensors[1], 0.05)
    assert metrics.mean_interval(given[0]) == metrics.mean_interval(tensors[0])
    assert ums(make(np.array([0, 3, 3])), 3) == Count(2, 3)
    rows = make(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]))
    assert nearest(rows, rows)[1][:, 0].tolist() == [0, 1, 2] and metrics.frechet_distance(rows, rows) < 1e-12
    with pytest.raises(Refused, match="others cannot be read as numbers"):
        auc(given[0], ["a", "b"])


def test_counts():
    assert Count(3, 12).rate == 0.25 and str(Count(3, 12)) == "3/12"
    for k, n in ((0, 0), (-1, 3)):
        with pytest.raises(Refused):
            Count(k, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_is_the_smallest_that_keeps_the_rate(dtype):
    for seed in range(20):
        values = (normal(137, seed=seed, dtype=dtype) * 4).round() / 4  # many ties
        for fpr in (0.01, 0.05, 0.2, 0.5):
            t = threshold(values, fpr)
            assert (values >= t).double().mean() <= fpr
            lower = np.nextafter(t, -math.inf, dtype=values.numpy().dtype)
            assert (values >= float(lower)).double().mean() > fpr


def test_threshold_refuses_what_cannot_resolve_the_rate():
    assert threshold(torch.arange(100.0), 0.01) == pytest.approx(98)
    assert threshold(torch.arange(100.0), 0.29) == pytest.approx(70)  # 0.29 * 100 is 28.999... in binary
    for size, fpr, said in ((99, 0.01, "at least 100"), (5, 0.0, "between 0 and 1"), (5, 1.0, "between 0 and 1")):
        with pytest.raises(Refused, match=said):
            threshold(torch.arange(float(size)), fpr)
    with pytest.raises(Refused, match="NaN"):
        threshold(torch.tensor([1.0, math.nan]), 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_threshold_lies_where_no_cosine_can_reach(dtype):
    """Copies of members among the calibration images raised it to 1.0000001: a perfect memorizer scored 0 of 200."""
    members, others = (normal(n, 16, seed=n, dtype=dtype) for n in (200, 300))
    copied = torch.cat((others[:290], members[:10]))
    apart, mixed = (nearest(part, members)[0][:, 0] for part in (others, copied))
    with pytest.raises(Refused, match=r"10 of 300 held-out images equal a training image \(similarity 1\).*one part"):
        threshold(mixed, 0.01)
    assert threshold(mixed, 0.05) < 1  # ten of 300 are allowed then
    assert ams(nearest(members, members)[0], threshold(apart, 0.01)) == Count(200, 200)  # a perfect memorizer
    with pytest.raises(Refused, match="equal a training image"):
        threshold(torch.full((100,), 1 - 1e-7, dtype=torch.float64), 0.01)  # 1, up to rounding
    # Statistics of another range, and ties at their top, are no cosines.
    assert tpr_at_fpr([3] * 40 + [1] * 60, [1] * 3 + [0] * 197, 0.01) == Count(40, 100)
    assert threshold(torch.tensor([2.0] * 10), 0.2) > 2


@pytest.mark.parametrize("ties", [False, True])
def test_tpr_at_fpr_lies_on_scikit_learns_curve(ties):
    members, others = normal(300) + 1, normal(500, seed=1)
    if ties:
        members, others = members.round(decimals=1), others.round(decimals=1)
    truth = [1] * 300 + [0] * 500
    fpr, tpr, _ = roc_curve(truth, torch.cat((members, others)).numpy(), drop_intermediate=False)
    for level in (0.002, 0.01, 0.1, 0.3):
        assert tpr_at_fpr(members, others, level).rate == pytest.approx(tpr[fpr <= level + 1e-12].max())
    assert tpr_at_fpr(torch.ones(4, dtype=torch.long), torch.ones(100), 0.5) == Count(0, 4)
    assert tpr_at_fpr(torch.tensor([97, 98, 99]), torch.arange(100)) == Count(1, 3)


def test_top_means():
    values = torch.arange(1000.0)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    assert top_means(values).tolist() == [999.0, 997.0, 994.5, 974.5, 949.5]
    assert top_means(values[:30].sort().values, [0.001]).item() == values[:30].max()  # never fewer than one
    with pytest.raises(Refused, match="1.5"):
        top_means(values, [0.5, 1.5])


def statistics(kind):
    members, others = normal(40) + 0.7, normal(65, seed=1)
    if kind == "ties":
        return members.round(), others.round()
    if kind == "integers":
        return (members * 3).long(), (others * 3).long()
    if kind == "infinite":
        ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
        return torch.cat((members, ends)), torch.cat((others, ends))
    return members, others


KINDS = ["distinct", "ties", "integers", "infinite"]


@pytest.mark.parametrize("kind", KINDS)
def test_roc_and_auc_equal_scikit_learn(kind):
    members, others = statistics(kind)
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    ranks = torch.cat((members, others)).unique(return_inverse=True)[1].numpy()  # scikit-learn refuses infinities
    fpr, tpr, _ = roc_curve(truth, ranks, drop_intermediate=False)
    ours = roc(members, others)
    np.testing.assert_allclose(ours[0], fpr, atol=1e-14)
    np.testing.assert_allclose(ours[1], tpr, atol=1e-14)
    area, (low, high) = auc(members, others)
    assert area == pytest.approx(roc_auc_score(truth, ranks), rel=1e-12)
    assert area == pytest.approx(float(torch.trapezoid(ours[1], ours[0])), rel=1e-12)
    assert low < area < high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fpr", [0.02, 0.1, 0.3, 0.75])
def test_tpr_at_fpr_lies_on_the_curve(kind, fpr):
    members, others = statistics(kind)
    x, y = roc(members, others)
    allowed = x <= fpr + 1e-12
    # Among the corners at most at this rate, the highest; which need not touch the rate itself.
    assert tpr_at_fpr(members, others, fpr).rate == pytest.approx(float(y[allowed].max()), abs=1e-12)


def test_delong_counted_pair_by_pair():
    members, others = statistics("ties")
    wins = (members[:, None] > others).double() + 0.5 * (members[:, None] == others)  # (N, M)
    variance = np.var(wins.mean(1).numpy(), ddof=1) / 40 + np.var(wins.mean(0).numpy(), ddof=1) / 65
    area, (low, high) = auc(members, others, level=0.9)
    assert area == pytest.approx(float(wins.mean()))
    logit = lambda p: math.log(p / (1 - p))  # noqa: E731
    half = norm.ppf(0.95) * math.sqrt(variance) / (area * (1 - area))
    assert (logit(high) - logit(area), logit(area) - logit(low)) == pytest.approx((half, half), rel=1e-9)


@pytest.mark.parametrize(("shift", "spread", "n", "m"), [(0.3, 1, 60, 60), (1.0, 3, 40, 400), (2.5, 1, 80, 50)])
def test_the_interval_of_the_area_covers(shift, spread, n, m):
    want = norm.cdf(shift / math.sqrt(1 + spread**2))
    g = torch.Generator().manual_seed(5)
    inside = 0
    for _ in range(400):
        _, (low, high) = auc(torch.randn(n, generator=g) * spread + shift, torch.randn(m, generator=g), level=0.9)
        inside += low <= want <= high
    assert 0.85 <= inside / 400 <= 0.95  # three standard errors of a fraction of 0.9 are 0.045


def test_where_all_pairs_agree_the_interval_is_that_of_disjoint_pairs():
    area, (low, high) = auc(normal(20).abs() + 1, -normal(30).abs())
    assert (area, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 20))
    area, (low, high) = auc(-normal(20).abs(), normal(30).abs() + 1)
    assert (area, low) == (0.0, 0.0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))
    area, (low, high) = auc(torch.zeros(20), torch.zeros(30))
    assert area == 0.5
    assert (low, high) == pytest.approx((0.5 * 0.025 ** (1 / 20), 1 - 0.5 * 0.025 ** (1 / 20)))


def test_larger_is_more_member_like():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]))[0] == 1
    assert auc(torch.tensor([2**24 + 1] * 2), torch.tensor([2**24] * 2))[0] == 1  # float32 sees a tie
    fpr, tpr = roc(torch.tensor([2.0]), torch.tensor([1.0]))
    assert (fpr.tolist(), tpr.tolist()) == ([0, 0, 1], [0, 1, 1])


@pytest.mark.parametrize("metric", [roc, auc])
def test_roc_and_auc_refuse(metric):
    with pytest.raises(Refused, match="members contain NaN"):
        metric(torch.tensor([0.0, math.nan]), torch.zeros(3))
    with pytest.raises(Refused, match="others must be"):
        metric(torch.zeros(3), torch.zeros(0))
    with pytest.raises(Refused, match="members must be"):
        metric(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(Refused, match="N >= 2"):
        auc(torch.zeros(1), torch.zeros(3))
