"""Who may judge whom, the margin, LiRA, RMIA and calibration: against loops, closed forms and simulations."""

import inspect
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch

from memlib import membership, metrics
from memlib.errors import Refused
from memlib.random import keyed


def normal(*shape, step=0):
    return torch.randn(*shape, generator=keyed(7, step), dtype=torch.float64)


def coins(*shape, step=0):
    return torch.rand(*shape, generator=keyed(8, step)) < 0.5


class TestHalves:
    def test_rows_are_halves_and_complements(self):
        seen = membership.halves(10, 4, keyed(0, 0))
        assert seen.shape == (8, 10) and seen.dtype == torch.bool
        assert (seen.sum(1) == 5).all() and (seen.sum(0) == 4).all()
        assert (seen[0::2] ^ seen[1::2]).all()
        assert torch.equal(seen, membership.halves(10, 4, keyed(0, 0))), "the generator decides"

    def test_every_half_is_equally_likely(self):
        rows = membership.halves(4, 3000, keyed(0, 1))[0::2]
        counts = Counter(map(tuple, rows.tolist()))
        assert len(counts) == 6 and scipy.stats.chisquare([*counts.values()]).pvalue > 1e-3

    @pytest.mark.parametrize("groups", [None, torch.arange(5), torch.tensor([0, 1, 2, 3, 3])])
    def test_of_an_odd_number_a_coin_gives_the_larger_half(self, groups):
        sizes = membership.halves(5, 400, keyed(0, 2), groups)[0::2].sum(1)
        assert set(sizes.tolist()) == {2, 3}
        assert scipy.stats.binomtest(int((sizes == 3).sum()), 400).pvalue > 1e-3

    def test_groups_share_the_coin_and_every_group_is_in_half_of_the_models(self):
        groups = torch.tensor([5, 5, 5, -1, 9, 9, 2, 3, 4, 7, 7, 7, 7, 8])
        seen = membership.halves(14, 1000, keyed(0, 3), groups)
        for group in groups.unique():
            rows = seen[:, groups == group]
            assert (rows == rows[:, :1]).all()
            assert scipy.stats.binomtest(int(rows[0::2, 0].sum()), 1000).pvalue > 1e-4
        assert (seen.sum(1) == 7).all(), "singles make up for it"

    def test_singles_in_groups_are_plain_halves(self):
        rows = membership.halves(4, 3000, keyed(0, 4), torch.arange(4))[0::2]
        counts = Counter(map(tuple, rows.tolist()))
        assert len(counts) == 6 and scipy.stats.chisquare([*counts.values()]).pvalue > 1e-3

    @pytest.mark.parametrize(
        ("n", "pairs", "groups", "why"),
        [
            (1, 2, None, "2 or more images"),
            (4, 0, None, "1 or more pairs"),
            (4, 1, torch.arange(3), r"\(4,\) integers"),
            (4, 1, torch.arange(4.0), "integers"),
            (4, 1, torch.zeros(4, dtype=torch.long), "one group"),
        ],
    )
    def test_refusals(self, n, pairs, groups, why):
        with pytest.raises(Refused, match=why):
            membership.halves(n, pairs, keyed(0, 0), groups)


class TestShadows:
    def test_all_but_the_pair(self):
        assert membership.shadows(2, 6) == membership.shadows(3, 6) == [0, 1, 4, 5]
        assert membership.shadows(0, 6, 2) == [2, 3]

    def test_every_image_is_in_half_of_the_shadows(self):
        seen = membership.halves(30, 8, keyed(1, 0))
        for target in range(16):
            assert (seen[membership.shadows(target, 16)].sum(0) == 7).all()
            assert (seen[membership.shadows(target, 16, 4)].sum(0) == 2).all()

    @pytest.mark.parametrize(("target", "models", "count"), [(0, 5, None), (0, 2, None), (4, 4, None), (-1, 4, None)])
    def test_a_target_or_models_that_do_not_fit(self, target, models, count):
        with pytest.raises(Refused):
            membership.shadows(target, models, count)

    @pytest.mark.parametrize("count", [1, 3, 0, 6])
    def test_shadows_come_by_pairs(self, count):
        with pytest.raises(Refused, match="whole pairs"):
            membership.shadows(0, 6, count)


class TestMargin:
    def test_is_the_log_odds_of_the_right_label(self):
        logits, labels = normal(3, 4, 5), torch.arange(12).reshape(3, 4) % 5
        p = logits.softmax(-1).gather(-1, labels[..., None])[..., 0]
        torch.testing.assert_close(membership.margin(logits, labels), (p / (1 - p)).log())
        torch.testing.assert_close(torch.nn.functional.logsigmoid(membership.margin(logits, labels)), p.log())

    @pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
    def test_does_not_saturate_in_float32(self, scale):
        logits = scale * torch.tensor([[3.0, 1.0, -1.0], [2.0, 1.0, -1.0], [-1.0, 1.0, 3.0]])
        found = membership.margin(logits, torch.zeros(3, dtype=torch.long))
        assert found.tolist() == pytest.approx([2 * scale, scale, -4 * scale])
        p = logits.softmax(-1)[:, 0]
        assert not (p.log() - (1 - p).log())[:2].isfinite().any(), "the way that saturates"

    @pytest.mark.parametrize(
        ("logits", "labels", "why"),
        [
            (torch.zeros(2, 1), torch.zeros(2).long(), "2 or more classes"),
            (torch.zeros(2, 3), torch.tensor([0, 3]), "not 0 to 2"),
            (torch.zeros(2, 3), torch.tensor([-1, 0]), "not 0 to 2"),
            (torch.zeros(2, 3), torch.zeros(3).long(), "integer labels"),
            (torch.zeros(2, 3), torch.zeros(2), "integer labels"),
            (torch.full((2, 3), math.nan), torch.zeros(2).long(), "not finite"),
        ],
    )
    def test_refusals(self, logits, labels, why):
        with pytest.raises(Refused, match=why):
            membership.margin(logits, labels)

    def test_of_nothing(self):
        assert membership.margin(torch.zeros(0, 3), torch.zeros(0).long()).shape == (0,)


def lira_by_loop(values, shadows, inside, offline, variance):
    """Image by image, with SciPy's normal distribution."""
    values, shadows, inside = (one.numpy() for one in (values, shadows, inside))

    def pooled(side):
        parts = [shadows[side[:, i], i] for i in range(len(values))]
        return math.sqrt(sum(((p - p.mean()) ** 2).sum() for p in parts) / sum(len(p) - 1 for p in parts))

    scores = []
    for i, v in enumerate(values):
        out, into = shadows[~inside[:, i], i], shadows[inside[:, i], i]
        s_out = pooled(~inside) if variance == "fixed" else out.std(ddof=1)
        if offline:
            law = scipy.stats.norm(out.mean(), s_out)
            scores.append(law.logcdf(v) - law.logsf(v))
            continue
        s_in = pooled(inside) if variance == "fixed" else into.std(ddof=1)
        scores.append(scipy.stats.norm.logpdf(v, into.mean(), s_in) - scipy.stats.norm.logpdf(v, out.mean(), s_out))
    return torch.tensor(np.array(scores))


class TestLira:
    @pytest.mark.parametrize("offline", [False, True])
    @pytest.mark.parametrize("variance", ["fixed", "example"])
    def test_against_a_loop_of_scipy(self, offline, variance):
        inside = coins(20, 15)  # unbalanced: 6 to 14 shadows a side
        values, shadows = 3 * normal(15), normal(20, 15, step=1) + inside
        found = membership.lira(values, shadows, inside, offline=offline, variance=variance)
        torch.testing.assert_close(found, lira_by_loop(values, shadows, inside, offline, variance))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_offline_never_saturates(self, dtype):
        shadows = torch.tensor([[-1.0], [1.0]], dtype=dtype).expand(2, 7)
        inside = torch.zeros(2, 7, dtype=torch.bool)
        values = torch.tensor([-200, -50, -10, 0, 10, 50, 200], dtype=dtype)
        found = membership.lira(values, shadows, inside, offline=True)
        assert found.isfinite().all() and (found.float().diff() > 0).all(), "in float32 too"
        assert found[3] == 0 and torch.equal(found, -found.flip(0))

    def test_one_shadow_a_side_is_enough_where_another_image_tells_the_deviation(self):
        inside = torch.tensor([[1, 1], [0, 1], [0, 0], [0, 0]], dtype=torch.bool)
        assert membership.lira(normal(2), normal(4, 2), inside).isfinite().all()

    def test_larger_is_more_member_like(self):
        inside, difficulty = membership.halves(200, 8, keyed(2, 0)), 5 * normal(200)
        values = difficulty + normal(16, 200, step=1) + 3 * inside
        rows = membership.shadows(4, 16)
        for how in ({}, {"offline": True}, {"variance": "example"}):
            found = membership.lira(values[4], values[rows], inside[rows], **how)
            assert metrics.auc(found[inside[4]], found[~inside[4]])[0] > 0.9
        assert metrics.auc(values[4][inside[4]], values[4][~inside[4]])[0] < 0.8, "uncalibrated"

    def test_an_image_without_its_shadows_is_named(self):
        inside = torch.ones(4, 5, dtype=torch.bool)
        inside[2:, [0, 1, 3]] = False
        with pytest.raises(
            Refused, match=r"2 of 5 images have fewer than 1 shadows that did not see it, first image 2"
        ):
            membership.lira(normal(5), normal(4, 5), inside)
        with pytest.raises(Refused, match=r"2 of 5 images have fewer than 1 shadows that saw it, first image 2 with 0"):
            membership.lira(normal(5), normal(4, 5), ~inside)
        membership.lira(normal(5), normal(4, 5), ~inside, offline=True)
        one = torch.tensor([[True], [False], [False]])
        with pytest.raises(Refused, match="fewer than 2 shadows that saw it"):
            membership.lira(normal(1), normal(3, 1), one, variance="example")
        with pytest.raises(Refused, match="no image has 2 shadows that saw it"):
            membership.lira(normal(1), normal(3, 1), one)

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
    def test_no_spread_is_refused(self, value):
        inside = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]], dtype=torch.bool)
        flat = torch.full((6, 2), value)
        with pytest.raises(Refused, match="agree exactly on all images"):
            membership.lira(normal(2), flat, inside)
        flat[:, 0] = normal(6).float()
        with pytest.raises(Refused, match="agree exactly on image 1"):
            membership.lira(normal(2), flat, inside, variance="example")
        assert membership.lira(normal(2), flat, inside).isfinite().all(), "pooled, one image is enough"

    @pytest.mark.parametrize(
        ("values", "shadows", "inside", "why"),
        [
            (torch.zeros(3), torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool), r"\(3,\) and \(4, 2\)"),
            (torch.zeros(2), torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool), "above 0"),
            (torch.zeros(0), torch.zeros(4, 0), torch.zeros(4, 0, dtype=torch.bool), "above 0"),
            (torch.zeros(2), torch.zeros(4, 2), torch.zeros(4, 2), "bools"),
            (torch.zeros(2), torch.zeros(4, 2), torch.zeros(2, 4, dtype=torch.bool), "bools"),
            (torch.full((2,), math.nan), torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool), "2 of the values"),
            (torch.zeros(2), torch.full((4, 2), math.inf), torch.zeros(4, 2, dtype=torch.bool), "8 of the shadows"),
        ],
    )
    def test_refusals(self, values, shadows, inside, why):
        for judge in (membership.lira, membership.calibrated):
            with pytest.raises(Refused, match=why):
                judge(values, shadows, inside)

    def test_an_unknown_variance(self):
        given = normal(1), normal(4, 1), coins(4, 1)
        unchecked = inspect.unwrap(membership.lira)  # the tests execute its signature, which a user need not
        with pytest.raises(Refused, match="'fixed' or 'example', not 'global'"):
            unchecked(*given, variance="global")


def simulated(judged, models=16, n=4000, d=0.0, spread=0.0, trials=12, seed=0, targets=None, **how):
    """AUC and TPR at 1 % of LiRA on Gaussian scores, mean and standard error over trials: ((auc, se), (tpr, se))."""
    g, found = keyed(seed, models), []
    for _ in range(trials):
        inside = membership.halves(n, models // 2, g)
        mean = torch.randn(n, generator=g, dtype=torch.float64)
        deviation = (spread * torch.randn(n, generator=g, dtype=torch.float64)).exp()
        scores = mean + deviation * (torch.randn(models, n, generator=g, dtype=torch.float64) + d * inside)
        rates = []
        for target in range(models)[:targets]:
            rows = judged(target, models)
            score = membership.lira(scores[target], scores[rows], inside[rows], **how)
            members, others = score[inside[target]], score[~inside[target]]
            rates.append((metrics.auc(members, others)[0], metrics.tpr_at_fpr(members, others, 0.01).rate))
        found.append(np.mean(rates, axis=0))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(trials)
    return tuple(zip(mean.tolist(), error.tolist(), strict=True))


def all_but_the_target(target, models):
    return [model for model in range(models) if model != target]


class TestTheDesign:
    """Pure noise as scores must give an AUC of .5; with the complement among the shadows it does not."""

    def test_without_the_complement_noise_is_chance(self):
        for variance in ("fixed", "example"):
            (auc, auc_se), (tpr, tpr_se) = simulated(membership.shadows, trials=20, variance=variance)
            assert abs(auc - 0.5) < 3.5 * auc_se and auc_se < 0.0012
            assert abs(tpr - 21 / 2001) < 3.5 * tpr_se and tpr_se < 0.0005, "20 of 2,000 others stay above"

    def test_with_the_complement_noise_is_not(self):
        (auc, auc_se), (tpr, tpr_se) = simulated(all_but_the_target, trials=20, variance="example")
        assert auc < 0.5 - 8 * auc_se and tpr < 0.01 - 8 * tpr_se, "the leak is hidden, not found"
        # Of a first simulation: .4875, standard error .0009, and .0068, with deviations that divide by the count.
        assert abs(auc - 0.4875) < 3 * math.hypot(auc_se, 0.0009)
        assert abs(tpr - 0.0068) < 0.001


class TestTheGaussianToy:
    """Members N(d + mu_i, s), others N(mu_i, s): the optimum at FPR f is Phi(Phi^-1(f) + d)."""

    OPTIMUM = float(scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.01) + 2))

    @pytest.mark.parametrize(
        ("shadows", "variance", "wanted"),
        [(16, "fixed", 0.31), (16, "example", 0.20), (14, "fixed", 0.31), (14, "example", 0.18)],
    )
    def test_few_shadows_do_not_reach_it(self, shadows, variance, wanted):
        _, (tpr, error) = simulated(membership.shadows, shadows + 2, d=2.0, variance=variance)
        assert abs(tpr - wanted) < 0.005 + 3 * error and error < 0.005
        assert tpr < self.OPTIMUM - 10 * error

    @pytest.mark.parametrize("variance", ["fixed", "example"])
    def test_many_shadows_do(self, variance):
        assert pytest.approx(0.37, abs=0.005) == self.OPTIMUM
        _, (tpr, error) = simulated(membership.shadows, 258, 2000, 2.0, trials=5, targets=16, variance=variance)
        assert abs(tpr - self.OPTIMUM) < 0.01 + 3 * error and error < 0.01

    def test_deviations_that_differ_want_their_own(self):
        found = [
            simulated(membership.shadows, 18, d=2.0, spread=0.7, seed=5, variance=variance)[1]
            for variance in ("fixed", "example")
        ]
        for (tpr, error), wanted in zip(found, (0.13, 0.19), strict=True):
            assert abs(tpr - wanted) < 0.005 + 3 * error and error < 0.005
        assert found[1][0] > found[0][0] + 0.03


def rmia_by_loop(log_p, shadows, inside, population, population_shadows, a, gamma):
    """Image by image and population image by population image, in probabilities."""
    p, q, z, y = (one.exp().tolist() for one in (log_p, shadows, population, population_shadows))
    models, scores = range(len(q)), []

    def interpolated(value):
        return value if a is None else ((1 + a) * value + 1 - a) / 2

    for i, mine in enumerate(p):
        out = np.mean([q[m][i] for m in models if not inside[m, i]])
        seen = [q[m][i] for m in models if inside[m, i]]
        marginal = (np.mean(seen) + out) / 2 if a is None else interpolated(out)
        wins = 0
        for k, other in enumerate(z):
            theirs = interpolated(np.mean([y[m][k] for m in models]))
            wins += (mine / marginal) / (other / theirs) >= gamma
        scores.append(wins / len(z))
    return torch.tensor(scores, dtype=torch.float64)


class TestRmia:
    def given(self, n=12, z=40, models=9):
        def log_p(*shape, step):
            return torch.nn.functional.logsigmoid(2 * normal(*shape, step=step))

        return (
            log_p(n, step=1),
            log_p(models, n, step=2),
            coins(models, n),
            log_p(z, step=3),
            log_p(models, z, step=4),
        )

    @pytest.mark.parametrize("a", [None, 0.0, 0.3, 1.0])
    @pytest.mark.parametrize("gamma", [1.0, 1.7, 2.0])
    def test_against_a_direct_loop(self, a, gamma):
        found = membership.rmia(*self.given(), offline_a=a, gamma=gamma)
        wanted = rmia_by_loop(*self.given(), a, gamma)
        assert torch.equal(found, wanted) and 0 < wanted.mean() < 1 and len(wanted.unique()) > 3

    def test_the_log_ratio_orders_alike_without_ties(self):
        for a in (None, 0.3):
            share = membership.rmia(*self.given(200), offline_a=a)
            ratio = membership.rmia(*self.given(200), offline_a=a, gamma=None)
            assert (share[ratio.argsort()].diff() >= 0).all()
            assert len(share.unique()) <= 41 and len(ratio.unique()) == 200

    def test_works_where_probabilities_underflow(self):
        log_p, shadows, inside, z, y = self.given()
        plain = membership.rmia(log_p, shadows, inside, z, y)
        assert torch.equal(membership.rmia(log_p - 2000, shadows - 2000, inside, z - 2000, y - 2000), plain)

    def test_offline_needs_no_sides(self):
        log_p, shadows, inside, z, y = self.given()
        none = torch.zeros_like(inside)
        found = [membership.rmia(log_p, shadows, side, z, y, offline_a=0.3) for side in (None, none)]
        assert torch.equal(*found)

    def test_finds_members(self):
        inside = membership.halves(300, 4, keyed(3, 0))
        margin = 2 * normal(300) + normal(8, 300, step=1) + 3 * inside
        log_p = torch.nn.functional.logsigmoid(margin)
        population = torch.nn.functional.logsigmoid(2 * normal(100, step=2) + normal(8, 100, step=3))
        rows = membership.shadows(0, 8)
        for a in (None, 0.3):
            given = (log_p[0], log_p[rows], inside[rows], population[0], population[rows])
            found = membership.rmia(*given, offline_a=a, gamma=1.0)
            assert metrics.auc(found[inside[0]], found[~inside[0]])[0] > 0.8

    @pytest.mark.parametrize(
        ("change", "how", "why"),
        [
            ({}, {"offline_a": 1.5}, "offline_a is 1.5"),
            ({}, {"gamma": 0.5}, "gamma is"),
            ({0: torch.ones(12)}, {}, "log p <= 0"),
            ({2: None}, {}, "which shadows saw"),
            ({2: torch.ones(9, 12, dtype=torch.bool)}, {}, "did not see it"),
            ({2: torch.zeros(9, 12, dtype=torch.bool)}, {}, "that saw it"),
            ({4: -torch.ones(8, 40)}, {}, "9 shadows judge the images and 8"),
            ({3: torch.full((40,), -math.inf)}, {}, "40 of the log-prob"),
            ({3: -torch.ones(39)}, {}, r"\(39,\)"),
        ],
    )
    def test_refusals(self, change, how, why):
        given = [change.get(i, one) for i, one in enumerate(self.given())]
        with pytest.raises(Refused, match=why):
            membership.rmia(*given, **how)


class TestCalibrated:
    VALUES = torch.tensor([1.0, 2.0])
    SHADOWS = torch.tensor([[0.0, 1.0], [4.0, 5.0], [2.0, 9.0]])
    INSIDE = torch.tensor([[False, False], [True, True], [False, True]])

    def test_by_hand(self):
        assert membership.calibrated(self.VALUES, self.SHADOWS).tolist() == [-1, -3]
        assert membership.calibrated(self.VALUES, self.SHADOWS, self.INSIDE).tolist() == [-1.5, -2]
        assert membership.calibrated(self.VALUES, self.SHADOWS, self.INSIDE, offline=True).tolist() == [0, 1]

    def test_refusals(self):
        with pytest.raises(Refused, match="give inside"):
            membership.calibrated(self.VALUES, self.SHADOWS, offline=True)
        everyone = torch.ones_like(self.INSIDE)
        with pytest.raises(Refused, match="did not see it"):
            membership.calibrated(self.VALUES, self.SHADOWS, everyone)
        with pytest.raises(Refused, match="that saw it"):
            membership.calibrated(self.VALUES, self.SHADOWS, ~everyone)
        membership.calibrated(self.VALUES, self.SHADOWS, ~everyone, offline=True)
