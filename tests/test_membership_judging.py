"""Thresholds from other targets, the rates that result, and intervals over pairs and images."""

import math

import pytest
import scipy.stats
import torch

from memlib import membership, metrics
from memlib.errors import Refused
from memlib.metrics import Count
from memlib.random import keyed


def normal(*shape, step=0):
    return torch.randn(*shape, generator=keyed(21, step), dtype=torch.float64)


class TestThreshold:
    @pytest.mark.parametrize("shift", [-300.0, 0.5, 1e6])
    def test_holds_its_rate_at_any_range(self, shift):
        others = shift + normal(250)
        found = membership.threshold(others, 0.02)
        assert int((others >= found).sum()) == 5
        assert membership.threshold(others.flip(0), 0.02) == found

    def test_agrees_with_that_of_cosines(self):
        others = normal(200).tanh()
        assert membership.threshold(others, 0.05) == metrics.threshold(others, 0.05)

    def test_of_float32_cuts_no_tie(self):
        others = torch.cat([torch.full((60,), 0.1), torch.zeros(40)])
        assert not (others >= membership.threshold(others, 0.5)).any()

    @pytest.mark.parametrize(
        ("others", "fpr"), [(normal(99), 0.01), (normal(0), 0.5), (normal(9), 0.0), (normal(9), 1.0)]
    )
    def test_what_cannot_be_resolved_is_refused(self, others, fpr):
        with pytest.raises(Refused, match="false-positive rate"):
            membership.threshold(others, fpr)

    def test_nan(self):
        with pytest.raises(Refused, match="NaN"):
            membership.threshold(torch.full((9,), math.nan), 0.5)


class TestTransferred:
    def test_by_hand(self):
        # Two pairs, four images. The threshold of targets 0 and 1 comes from the non-members of 2 and 3, and so on.
        inside = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
        scores = torch.tensor([[9, 3, 5, 0], [1, 2, 9, 9], [9, 4, 9, 3], [3, 9, 2, 3]])
        found = membership.transferred(scores, inside, 0.25)
        # Others of 2 and 3: 4, 3, 3, 2; one may pass: t just above 3. Others of 0 and 1: 5, 0, 1, 2: just above 2.
        assert found.hits.tolist() == (scores > torch.tensor([[3], [3], [2], [2]])).tolist()
        assert found.tpr == [Count(1, 2), Count(2, 2), Count(2, 2), Count(2, 2)]
        assert found.fpr == [Count(1, 2), Count(0, 2), Count(2, 2), Count(1, 2)]

    def test_neither_the_target_nor_its_complement_sets_the_threshold(self):
        inside, scores = membership.halves(100, 3, keyed(22, 0)), normal(6, 100)
        before = membership.transferred(scores, inside, 0.05)
        scores[2:4] += 100.0
        after = membership.transferred(scores, inside, 0.05)
        assert after.hits[2:4].all() and not after.hits[[0, 1, 4, 5]].any()
        assert 0 < sum(count.k for count in before.fpr) < 30

    def test_noise_meets_its_rate_on_average(self):
        inside = membership.halves(400, 8, keyed(22, 1))
        found = membership.transferred(normal(16, 400, step=1), inside, 0.1)
        for counts in (found.tpr, found.fpr):
            assert sum(count.k for count in counts) / 3200 == pytest.approx(0.1, abs=0.02)

    def test_a_target_of_another_scale_shows_in_the_rate_that_resulted(self):
        inside, scores = membership.halves(400, 4, keyed(22, 2)), normal(8, 400, step=2)
        scores[0] += 1.0
        assert membership.transferred(scores, inside, 0.05).fpr[0].rate > 0.15

    def test_canaries_are_judged_apart_by_the_threshold_of_all(self):
        inside, scores = membership.halves(200, 4, keyed(22, 3)), normal(8, 200, step=3)
        within = torch.arange(200) < 20
        scores = scores + 5.0 * (inside & within)
        alone, everyone = (membership.transferred(scores, inside, 0.05, part) for part in (within, None))
        assert torch.equal(alone.hits, everyone.hits)
        for t in range(8):
            members, others = inside[t] & within, ~inside[t] & within
            assert alone.tpr[t] == Count(int(alone.hits[t][members].sum()), int(members.sum()))
            assert alone.fpr[t] == Count(int(alone.hits[t][others].sum()), int(others.sum()))
        assert sum(c.k for c in alone.tpr) / sum(c.n for c in alone.tpr) > 0.95

    def test_refusals(self):
        inside, scores = membership.halves(20, 2, keyed(22, 4)), normal(4, 20)
        for given, why in (
            ((scores, inside[:, :19], 0.1), "of that shape"),
            ((scores, inside.double(), 0.1), "of that shape"),
            ((scores[0], inside[0], 0.1), r"\(T, N\)"),
            ((scores, inside, 0.01), "at least 100"),
            ((scores / 0 * 0, inside, 0.1), "80 scores are NaN"),
            ((scores[:3], inside[:3], 0.1), "pairs of complements"),
            ((scores, inside[[0, 2, 1, 3]], 0.1), "not complements"),
            ((scores[:2], inside[:2], 0.1), "pairs of complements"),
            ((scores, inside, 0.1, torch.arange(20)), "bools"),
            ((scores, inside, 0.1, torch.arange(19) < 3), "bools"),
            ((scores, inside, 0.1, torch.arange(20) < 1), "no member or no non-member"),
            ((scores, inside, 0.1, torch.arange(20) < 0), "no member or no non-member"),
        ):
            with pytest.raises(Refused, match=why):
                membership.transferred(*given)


def test_rates_of_pairs():
    counts = [Count(1, 2), Count(0, 4), Count(3, 3), Count(2, 4)]
    assert membership.pair_rates(counts) == [0.25, 0.75]
    with pytest.raises(Refused, match="no pairs"):
        membership.pair_rates(counts[:3])


def covered(threshold, by_pair, by_image, judged=None, pairs=8, n=200, runs=250):
    """The share of runs whose interval holds the true rate; hits of models and images with effects of their own."""
    truth = scipy.stats.norm.cdf(threshold / math.sqrt(1 + by_pair**2 + by_image**2))
    g, held, width = keyed(23, 0), 0, 0.0
    for _ in range(runs):
        inside = membership.halves(n, pairs, g)
        of_pairs = by_pair * torch.randn(pairs, 1, generator=g).repeat_interleave(2, 0)
        hits = torch.randn(2 * pairs, n, generator=g) < threshold + of_pairs + by_image * torch.randn(n, generator=g)
        low, high = membership.crossed_interval(hits, inside)
        held, width = held + (low <= truth <= high), width + (high - low) / runs
    return held / runs, width


class TestCrossedInterval:
    @pytest.mark.parametrize("threshold", [-0.5, -2.0])
    @pytest.mark.parametrize(("by_pair", "by_image"), [(0.0, 0.0), (0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
    def test_covers_whichever_varies(self, threshold, by_pair, by_image):
        held, width = covered(threshold, by_pair, by_image)
        assert held >= 0.90 and width < 0.2  # of 250 runs at .93 to .99; the standard error is .016

    def test_of_independent_cells_it_is_little_wider_than_the_binomial_interval(self):
        _, width = covered(-0.5, 0.0, 0.0)
        p = scipy.stats.norm.cdf(-0.5)
        assert 1 < width / (2 * 1.96 * math.sqrt(p * (1 - p) / 1600)) < 1.4

    def test_of_cells_that_only_differ_by_pair_it_is_that_of_the_pairs(self):
        inside, rates = membership.halves(2000, 8, keyed(23, 1)), torch.rand(8, generator=keyed(23, 2)).double()
        found = membership.crossed_interval(rates.repeat_interleave(2)[:, None].expand(16, 2000), inside)
        assert found == pytest.approx(metrics.mean_interval(rates, bounds=(0, 1)), rel=1e-6)

    def test_of_cells_that_only_differ_by_image_it_is_that_of_the_images(self):
        inside, values = membership.halves(500, 8, keyed(23, 3)), torch.rand(500, generator=keyed(23, 4)).double()
        found = membership.crossed_interval(values.expand(16, 500), inside)
        assert found == pytest.approx(metrics.mean_interval(values, bounds=(0, 1)), rel=1e-2)

    def test_differences_of_two_arms(self):
        inside = membership.halves(100, 4, keyed(23, 5))
        first, second = (torch.rand(8, 100, generator=keyed(23, i)) < p for i, p in ((6, 0.6), (7, 0.2)))
        low, high = membership.crossed_interval(first.double() - second.double(), inside, bounds=(-1, 1))
        mean = float((first.double() - second.double())[inside].mean())
        assert 0.2 < low < mean < high < 0.6 and mean - low == pytest.approx(high - mean)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_without_spread_it_keeps_a_width(self, value):
        inside = membership.halves(10, 8, keyed(23, 8))
        found = membership.crossed_interval(torch.full((16, 10), value), inside)
        assert found == pytest.approx(metrics.mean_interval([value] * 8, bounds=(0, 1)))
        assert found[1] - found[0] > 0.3

    def test_cells_that_do_not_count_do_not_matter(self):
        inside, values = membership.halves(50, 4, keyed(23, 9)), torch.rand(8, 50, generator=keyed(23, 10))
        spoilt = values.masked_fill(~inside, math.nan)
        assert membership.crossed_interval(spoilt, inside) == membership.crossed_interval(values, inside)

    def test_refusals(self):
        inside, values = membership.halves(10, 2, keyed(23, 11)), torch.rand(4, 10, generator=keyed(23, 12))
        for given, why in (
            ((values[:3], inside[:3]), "T even"),
            ((values, inside.double()), "T even"),
            ((values[:2], inside[:2]), "2 pairs"),
            ((values + 1, inside), "between 0.0 and 1.0"),
            ((values / 0, inside), "finite"),
            ((values, inside & (torch.arange(4) > 1)[:, None]), "pair 0"),
            ((values, inside & (torch.arange(10) < 1)), "2 judged images"),
            ((values[:, :0], inside[:, :0]), "2 judged images"),
            ((values, inside, 1.5), "confidence level"),
        ):
            with pytest.raises(Refused, match=why):
                membership.crossed_interval(*given)
