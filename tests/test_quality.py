"""Precision, recall, density and coverage against scikit-learn, the Inception score against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torchmetrics.image.inception import InceptionScore

from memlib import metrics
from memlib.errors import Refused
from memlib.metrics import Count, _balls, density_coverage, inception_score, precision_recall


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles that leave ragged ends in both directions."""
    monkeypatch.setattr(_balls, "_TILE", 16)
    monkeypatch.setattr(_balls, "_CELLS", 100)


def by_scikit_learn(points, centres, k):
    """The (M, U) matrix of which point lies in which ball of the distinct rows."""
    centres = np.unique(centres, axis=0)
    tree = NearestNeighbors(algorithm="brute", metric="sqeuclidean").fit(centres)
    radii = tree.kneighbors(centres, k + 1)[0][:, -1]  # the first neighbour is the row itself
    differences = np.asarray(points)[:, None] - centres[None]
    return (differences**2).sum(2) <= radii


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("kind", ["normal", "grid"])
def test_equals_scikit_learn(k, kind):
    real, fake = normal(60, 3), 0.8 * normal(75, 3, seed=1) + 1.2
    if kind == "grid":  # whole numbers: duplicates, and many distances that touch a surface exactly
        real, fake = (real * 1.5).round() + 1000, (fake * 1.5).round() + 1000
    inside_real, inside_fake = by_scikit_learn(fake, real, k), by_scikit_learn(real, fake, k)
    found = precision_recall(real, fake, k)
    assert (found.precision.k, found.precision.n) == (inside_real.any(1).sum(), 75)
    assert (found.recall.k, found.recall.n) == (inside_fake.any(1).sum(), 60)
    density, coverage = density_coverage(real, fake, k)
    distinct = by_scikit_learn(np.unique(fake, axis=0), real, k)
    assert distinct.shape < (75, 60) if kind == "grid" else distinct.shape == (75, 60)
    assert density == pytest.approx(distinct.sum() / (k * len(distinct)), rel=1e-12)
    assert (coverage.k, coverage.n) == (distinct.any(0).sum(), distinct.shape[1])
    assert 0 < found.precision.k < 75 and 0 < found.recall.k < 60  # else nothing was compared


def test_a_corner_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # k = 1: radii 1, 1, 2, 7
    fake = torch.tensor([[-1.0], [-1.1], [5.0], [17.0], [17.1]])
    assert str(precision_recall(real, fake, 1).precision) == "3/5"
    # About 0: [-1, 1]; 1: [0, 2]; 3: [1, 5]; 10: [3, 17]. In them: -1, none, 5, and 5 with 17.
    density, coverage = density_coverage(real, fake, 1)
    assert (density, str(coverage)) == (4 / 5, "3/4")


def test_copies_are_inside_and_a_distant_centre_costs_nothing():
    real = normal(50, 4) + 1e6
    assert str(precision_recall(real, real.flip(0)).precision) == "50/50"
    # Every real image twice: the nearest other image sets a radius, not the copy at distance 0.
    twice = real.repeat(2, 1)
    fake = torch.cat((real[:10], real[10:20] + 2**-26))
    assert str(precision_recall(twice, fake, 1).precision) == "20/20"
    assert precision_recall(twice, fake, 1).recall.rate == precision_recall(real, fake, 1).recall.rate


@pytest.mark.parametrize("k", [1, 5])
def test_identical_sets_have_a_density_of_k_plus_1_over_k(k):
    real = normal(80, 6)
    assert density_coverage(real, real, k) == ((k + 1) / k, Count(80, 80))
    # Planted duplicates, some of them many times, change nothing on either side.
    planted = torch.cat((real, real[:7].repeat(60, 1)))[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    for one, other in ((planted, planted), (planted, real), (real, planted)):
        assert density_coverage(one, other, k) == ((k + 1) / k, Count(80, 80))
    assert precision_recall(planted, real, k) == (Count(80, 80), Count(500, 500))


def test_sets_that_are_copies_of_a_few_rows_are_refused():
    ones, rows = torch.ones(1024, 64), normal(1024, 64, dtype=torch.float32)
    with pytest.raises(Refused, match="1024 real rows are copies of 1, where k = 5 needs 6 distinct ones"):
        density_coverage(ones, ones)
    with pytest.raises(Refused, match="real rows are copies of 5, where k = 5 needs 6"):
        density_coverage(rows[:5].repeat(100, 1), rows)
    density, coverage = density_coverage(rows, rows[:1].expand(1024, -1))  # a collapsed model is judged
    assert coverage.rate < 0.1 and density == density_coverage(rows, rows[:1].repeat(2, 1)).density
    with pytest.raises(Refused, match="fake rows are copies of 1, where k = 3 needs 4"):
        precision_recall(rows, ones)


def test_half_a_distribution_is_precise_and_recalls_half():
    real = torch.cat((normal(200, 2), normal(200, 2, seed=1) + 50))
    precision, recall = precision_recall(real, normal(400, 2, seed=2))
    assert precision.rate > 0.9
    assert 0.4 < recall.rate <= 0.5


class Logits(nn.Module):
    """A feature extractor for torchmetrics that takes logits for images."""

    num_features = 7

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")
@pytest.mark.parametrize(("n", "splits"), [(60, 1), (60, 6), (60, 4)])
def test_inception_score_equals_torchmetrics(n, splits):
    rows = 2 * normal(n, 7)
    peer = InceptionScore(feature=Logits(), splits=splits)
    peer.update(rows[torch.from_numpy(np.lexsort(rows.softmax(1).T.flip(0).numpy()))].float())
    torch.manual_seed(3)  # it shuffles rows as they come; ours are sorted first
    want = [float(value) for value in peer.compute()]
    mean, std = inception_score(rows.softmax(1), splits, seed=3)
    assert mean == pytest.approx(want[0], rel=1e-5)
    assert math.isnan(std) if splits == 1 else std == pytest.approx(want[1], rel=1e-4)


def test_inception_score_of_certain_and_of_clueless_classifiers():
    certain = torch.eye(5).repeat(8, 1)  # exact zeros: 0 log 0 is 0
    assert inception_score(certain, 1)[0] == pytest.approx(5.0)
    assert inception_score(torch.full((40, 5), 0.2), 4) == pytest.approx((1.0, 0.0))
    by_class = torch.eye(5).repeat_interleave(8, 0)
    assert inception_score(by_class, 1)[0] == pytest.approx(5.0)
    assert inception_score(by_class, 5) == inception_score(certain, 5)  # not 1, as for parts of one class each
    many = torch.eye(5).repeat_interleave(400, 0)
    assert inception_score(many, 5)[0] == pytest.approx(5.0, abs=0.05)
    assert inception_score(many, 5) != inception_score(many, 5, seed=1)


@pytest.mark.parametrize(
    ("rows", "splits", "words"),
    [
        (normal(20, 5), 2, "apply softmax"),
        (torch.full((20, 5), 0.1), 2, "apply softmax"),
        (torch.full((4, 5), 0.2), 5, "give splits from 1 to 4"),
        (torch.full((4, 5), 0.2), 0, "give splits from 1 to 4"),
        (torch.full((4,), 0.2), 1, r"shape \(N, D\)"),
    ],
)
def test_what_is_no_probability_is_refused(rows, splits, words):
    with pytest.raises(Refused, match=words):
        inception_score(rows, splits)


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
def test_refusals(metric):
    with pytest.raises(Refused, match="give k from 1 to 3"):
        metric(torch.zeros(4, 2), torch.zeros(9, 2), 4)
    with pytest.raises(Refused, match="give k from 1 to 8"):
        metric(torch.zeros(9, 2), torch.zeros(9, 2), 0)
    with pytest.raises(Refused, match=r"fake features must have shape \(N, 2\)"):
        metric(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(Refused, match="real row 0 is not finite"):
        metric(torch.full((9, 2), np.nan), torch.zeros(9, 2))


ORDERED = {
    "density": lambda a, b: density_coverage(a, b),
    "precision": lambda a, b: precision_recall(a, b),
    "inception": lambda a, b: inception_score(a.softmax(1), 7),
    "frechet": metrics.frechet_distance,
    "moments": lambda a, b: metrics.Moments(6).update(a).update(b).covariance,
    "kid": metrics.kid,
    "mmd": lambda a, b: metrics.mmd2(a, b, [0.5, 1.0]),
    "auc": lambda a, b: metrics.auc(a[:, 0], b[:, 0])[0],
    "tpr": lambda a, b: metrics.tpr_at_fpr(a[:, 0], b[:, 0], 0.05).k,
    "top means": lambda a, b: metrics.top_means(a[:, 0]),
    "threshold": lambda a, b: metrics.threshold(a[:, 0], 0.1),
    "mean": lambda a, b: metrics.mean_interval(a[:, 0]),
    "nearest": lambda a, b: metrics.nearest(a, b)[0].sort(0).values,
    "l2-ratio": lambda a, b: metrics.l2_ratio(a, b).sort().values,
    "adaptive": lambda a, b: metrics.adaptive_l2(a, b, 9).sort().values,
    "cliques": lambda a, b: [len(group) for group in metrics.cliques(torch.cat((a, a, a[:9])), 1 - 1e-9, 2)],
}


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_rows_changes_nothing(name):
    a, b = normal(150, 6), normal(180, 6, seed=1) + 0.3
    a = a[a[:, 0].argsort()]  # an ordered set, as samples class by class are
    g = torch.Generator().manual_seed(5)
    mixed = [rows[torch.randperm(len(rows), generator=g)] for rows in (a, b)]
    one, other = (ORDERED[name](*pair) for pair in ((a, b), mixed))
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other)
    elif isinstance(one, float):
        assert one == pytest.approx(other)
    else:
        assert one == other or one == pytest.approx(other)


@pytest.mark.parametrize(("n", "m"), [(1, 8), (3, 7), (300, 16), (16, 1024), (9, 12)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_pairs_are_listed_and_counted_as_by_the_plain_form(n, m, share):
    chosen = torch.rand(n, m, generator=torch.Generator().manual_seed(n * m)) < share
    assert torch.equal(torch.stack(_balls._places(chosen)), chosen.nonzero().T)
    rows, columns = _balls._totals(chosen)
    assert torch.equal(rows, chosen.sum(1)) and torch.equal(columns, chosen.sum(0))


@pytest.mark.parametrize(("columns", "kept"), [(8, 3), (96, 3), (1024, 11), (1000, 11), (1001, 2)])
def test_the_smallest_by_groups_are_the_smallest(columns, kept):
    least = torch.randn(50, columns, generator=torch.Generator().manual_seed(columns)).round(decimals=1)  # with ties
    value, place = _balls._smallest(least, kept)
    assert torch.equal(value.sort(1).values, least.sort(1).values[:, :kept])
    assert torch.equal(least.gather(1, place), value)
    assert all(len(set(row)) == len(row) for row in place.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distinct_rows_are_those_of_torch(dtype):
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    found, times = _balls.unique(rows)
    assert torch.equal(found, rows) and times.tolist() == [1] * 40
    rows[3], rows[9], rows[7, 2] = rows[5], rows[5], 0.0
    rows[20] = rows[7]
    rows[20, 2] = -0.0  # equal, in other bits
    for ours, theirs in zip(_balls.unique(rows), rows.unique(dim=0, return_counts=True), strict=True):
        assert torch.equal(ours, theirs)
    assert len(_balls.unique(rows)[0]) == 37
