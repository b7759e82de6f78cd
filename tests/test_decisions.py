"""From statistics to decisions, and statistics at the clean image: known answers, levels kept under the null."""

import pytest
import torch
from scipy.stats import mannwhitneyu

from memlib import analytic, membership, metrics
from memlib.errors import Refused
from memlib.noise import seeded
from memlib.random import keyed

POINTS = torch.randn(40, 6, generator=keyed(7, 0), dtype=torch.float64)


def test_conformal_p_values_count_the_others_that_look_as_much_like_members():
    p = membership.conformal(torch.tensor([5.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert p.tolist() == [0.2, 0.8, 1.0]
    with pytest.raises(Refused, match="without NaN"):
        membership.conformal(torch.tensor([torch.nan]), torch.ones(3))


def test_conformal_p_values_keep_their_level():
    draws = torch.randn(4000, 20, generator=keyed(7, 1))
    p = torch.cat([membership.conformal(row[:1], row[1:]) for row in draws])
    for level in (0.05, 0.1, 0.5):
        assert (p <= level).double().mean() < level + 3.5 * (level * (1 - level) / 4000) ** 0.5


def test_discoveries_are_those_of_benjamini_and_hochberg():
    # Of ten p-values at level .1 the limits are .01, .02, ...: the third, .029, passes, and takes the second with it.
    p = torch.tensor([0.9, 0.001, 0.025, 0.029, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert membership.discoveries(p, 0.1).nonzero()[:, 0].tolist() == [1, 2, 3]
    assert not membership.discoveries(torch.full((5,), 0.5), 0.1).any()
    with pytest.raises(Refused, match="level between 0 and 1"):
        membership.discoveries(p, 0.0)


def test_under_the_null_few_runs_discover_anything():
    runs, level, found = 1000, 0.1, 0
    for number in range(runs):
        draws = torch.randn(60, generator=keyed(8, number))
        found += bool(membership.discoveries(membership.conformal(draws[:30], draws[30:]), level).any())
    assert found / runs < level + 3 * (level * (1 - level) / runs) ** 0.5


def test_the_p_value_of_a_set_is_that_of_mann_and_whitney():
    a, b = torch.randn(2, 30, generator=keyed(7, 2))
    want = mannwhitneyu(a.numpy(), b.numpy(), alternative="greater").pvalue
    assert membership.set_p_value(a, b) == pytest.approx(want, rel=1e-6)
    assert membership.set_p_value(a + 2, b) < 1e-6 < membership.set_p_value(a - 2, b)


class TestAtTheCleanImage:
    """A memorizer leaves its points where they are; of Gaussian data everything is known."""

    def test_of_a_memorizer(self):
        memorizer, fresh = analytic.Empirical(POINTS), POINTS + 0.5
        far = (fresh - POINTS).norm(4, dim=1) / 0.01
        torch.testing.assert_close(membership.sima(memorizer, POINTS, 0.05), torch.zeros(40, dtype=torch.float64))
        near = torch.cdist(fresh, POINTS).argmin(1) == torch.arange(40)
        assert near.any()
        torch.testing.assert_close(membership.sima(memorizer, fresh, 0.01)[near], -far[near])
        dimension = membership.local_dimension(memorizer, POINTS, 0.05, seeded(range(40)))
        torch.testing.assert_close(dimension, torch.zeros(40, dtype=torch.float64), atol=1e-6, rtol=0)
        bends = membership.curvature(memorizer, POINTS, 0.05, seeded(range(40)))
        torch.testing.assert_close(bends, torch.ones(40, dtype=torch.float64))

    def test_of_gaussian_data_on_a_plane(self):
        covariance = torch.diag(torch.tensor([4.0, 4.0, 0, 0, 0, 0], dtype=torch.float64))[None]
        plane = analytic.GaussianMixture(torch.zeros(1, 6, dtype=torch.float64), covariances=covariance)
        at, sigma = torch.zeros(5, 6, dtype=torch.float64), 0.01
        dimension = -membership.local_dimension(plane, at, sigma, seeded(range(5)))
        torch.testing.assert_close(dimension, torch.full((5,), 2 * 4 / (4 + sigma**2), dtype=torch.float64))

    def test_curvature_of_gaussian_data(self):
        one = analytic.GaussianMixture(torch.zeros(1, 6, dtype=torch.float64), std=2.0)
        bends = membership.curvature(one, POINTS, 1.0, seeded(range(40)))
        torch.testing.assert_close(bends, torch.full((40,), 0.2, dtype=torch.float64))

    def test_refusals(self):
        for statistic in (membership.local_dimension, membership.curvature):
            with pytest.raises(Refused, match="noise level"):
                statistic(analytic.Empirical(POINTS), POINTS, 0.0, seeded(range(40)))
        with pytest.raises(Refused, match="p >= 1"):
            membership.sima(analytic.Empirical(POINTS), POINTS, 0.1, norm=0.5)


class TestAgainstHeldOutImages:
    """AuthPct, C_T and the DCR share on sets small enough to count."""

    def test_rounding_tells_no_image_from_its_copy(self):
        g = torch.Generator().manual_seed(0)
        rows = 100 + torch.randn(40, 3000, generator=g)  # far from 0: products of equal rows are off by 1e-4
        assert str(metrics.authentic(rows[:10] + 0.1, rows.repeat(2, 1))) == "0/10"

    def test_a_copy_is_not_authentic_even_where_every_image_occurs_twice(self):
        train = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])
        made = torch.tensor([[0.0, 0.0], [0.0, 3.9], [20.0, 0.0], [4.1, 0.0]])
        for rows in (train, train.repeat(2, 1)):
            assert str(metrics.authentic(made, rows)) == "1/4"  # (20, 0) alone is 16 from an image with a gap of 4
        with pytest.raises(Refused, match="one image"):
            metrics.authentic(made, train[:1].repeat(3, 1))

    def test_copying_score_is_the_z_value_of_mann_and_whitney(self):
        near, far = torch.rand(50, generator=keyed(7, 3)), torch.rand(40, generator=keyed(7, 4))
        u = mannwhitneyu(near.numpy(), far.numpy()).statistic
        assert metrics.copying_score(near, far) == pytest.approx((u - 1000) / (50 * 40 * 91 / 12) ** 0.5)
        assert metrics.copying_score(torch.zeros(50), far) < -6

    def test_the_baseline_of_dcr_is_the_share_of_training_images(self):
        runs, hits, total = 40, 0, 0
        for number in range(runs):
            rows = torch.randn(130, 5, generator=keyed(9, number))
            made, train, held = rows[:30], rows[30:110], rows[110:]
            near, far = (torch.cdist(made, one).amin(1) for one in (train, held))
            count, baseline = metrics.nearer_to_train(near, far, 80, 20)
            assert baseline == 0.8
            hits, total = hits + count.k, total + count.n
        assert abs(hits / total - 0.8) < 0.05  # and far from 1/2
