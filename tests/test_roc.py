"""The ROC curve and its area against scikit-learn, pairs counted one by one, and the coverage of the interval."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from memlib.errors import Refused
from memlib.metrics import auc, roc, tpr_at_fpr


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
def test_equals_scikit_learn(kind):
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
def test_the_interval_covers(shift, spread, n, m):
    want = norm.cdf(shift / math.sqrt(1 + spread**2))
    g = torch.Generator().manual_seed(5)
    inside = 0
    for _ in range(400):
        _, (low, high) = auc(torch.randn(n, generator=g) * spread + shift, torch.randn(m, generator=g), level=0.9)
        inside += low <= want <= high
    assert 0.85 <= inside / 400 <= 0.95  # three standard errors of a share of 0.9 are 0.045


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
def test_refusals(metric):
    with pytest.raises(Refused, match="members contain NaN"):
        metric(torch.tensor([0.0, math.nan]), torch.zeros(3))
    with pytest.raises(Refused, match="others must be"):
        metric(torch.zeros(3), torch.zeros(0))
    with pytest.raises(Refused, match="members must be"):
        metric(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(Refused, match="N >= 2"):
        auc(torch.zeros(1), torch.zeros(3))
