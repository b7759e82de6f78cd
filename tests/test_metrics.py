"""Metrics against faiss, scikit-learn and SciPy, and on matrices small enough to count by hand."""

import math

import faiss
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import roc_curve
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from memlib.errors import Refused
from memlib.metrics import (
    Count,
    ams,
    in_band,
    l2_ratio,
    matches,
    mean_interval,
    nearest,
    neighbours,
    paired_interval,
    ratio_interval,
    threshold,
    top_means,
    tpr_at_fpr,
    ums,
)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that leave ragged ends in both directions."""
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 16)
    monkeypatch.setattr(neighbours, "_CELLS", 64)
    monkeypatch.setattr(neighbours, "_PAIRS", 40)


@pytest.mark.parametrize("k", [1, 4, 53])
def test_nearest_equals_scikit_learn(k, small_tiles):
    queries, train = normal(23, 6), normal(53, 6, seed=1)
    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(train).kneighbors(queries)
    similarity, found = nearest(queries, train, k)
    assert found.tolist() == index.tolist()
    torch.testing.assert_close(similarity, 1 - torch.from_numpy(distance))


@pytest.mark.parametrize("shift", [0.0, 3.0, 300.0])
def test_nearest_equals_faiss_in_float32(shift):
    # The shift makes all cosines alike: at 3.0 bfloat16 separates few of them, at 300.0 float32 hardly any.
    queries, train = (normal(n, 64, seed=n, dtype=torch.float32) + shift for n in (1500, 3000))
    index = faiss.IndexFlatIP(64)
    index.add(unit(train).numpy())
    theirs, places = index.search(unit(queries).numpy(), 3)
    similarity, found = nearest(queries, train, 3)
    torch.testing.assert_close(similarity, torch.from_numpy(theirs), atol=1e-6, rtol=0)
    exact = unit(queries.double()) @ unit(train.double()).T
    torch.testing.assert_close(exact.gather(1, found), exact.topk(3).values, atol=5e-7, rtol=0)
    if shift == 0:
        assert found.tolist() == places.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bfloat16_proposal_never_loses_the_best(dtype, monkeypatch):
    # Rows closer to each other than bfloat16 resolves, so that only the error bound saves the right answer.
    train = unit(normal(40, 32, dtype=dtype)).repeat_interleave(20, 0) + 2e-4 * normal(800, 32, seed=1, dtype=dtype)
    queries = train[::7] + 1e-3 * normal(115, 32, seed=2, dtype=dtype)
    monkeypatch.setattr(neighbours, "_products", lambda train: [torch.bfloat16, dtype])
    want = (unit(queries.double()) @ unit(train.double()).T).topk(2)
    similarity, index = nearest(queries, train, 2)
    torch.testing.assert_close(similarity.double(), want.values, atol=3e-7, rtol=0)
    if dtype is torch.float64:
        assert torch.equal(index, want.indices)


@pytest.mark.parametrize("width", [3, 64, 517])
def test_the_bound_holds_where_products_round_worst(width):
    # All entries of one sign: rounding errors add up instead of averaging out.
    a, b = (unit(normal(n, width, seed=n, dtype=torch.float32).abs()) for n in (200, 300))
    for dtype in (torch.bfloat16, torch.float32):
        lost = (a - a.to(dtype)).norm(dim=1)[:, None] + (b - b.to(dtype)).norm(dim=1)
        product = (a.to(dtype) @ b.to(dtype).T).double()
        error = (product - a.double() @ b.double().T).abs()
        assert (error <= neighbours._bound(dtype, width, lost, product.abs())).all()


def test_ties_take_the_lowest_index_in_any_tiling(small_tiles):
    rows = normal(31, 48, dtype=torch.float32)
    train = torch.cat((rows, rows, rows))
    similarity, index = nearest(rows, train, 3)
    assert index.tolist() == [[i, i + 31, i + 62] for i in range(31)]
    assert (similarity == similarity[:, :1]).all()
    neighbours._ROWS, neighbours._COLUMNS, neighbours._CELLS = 1024, 2048, 1 << 19
    assert all(map(torch.equal, nearest(rows, train, 3), (similarity, index)))


def test_nearest_keeps_dtype_and_graph_out():
    queries = normal(3, 5, dtype=torch.float32).requires_grad_()
    similarity, _ = nearest(queries, normal(4, 5, dtype=torch.float32))
    assert similarity.dtype == torch.float32 and not similarity.requires_grad
    assert nearest(queries, normal(4, 5))[0].dtype == torch.float64
    assert nearest(queries.half(), normal(4, 5).half())[0].dtype == torch.float32


class Largest(TorchDispatchMode):
    """The largest number of elements that any single result of an operation has."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("metric", [nearest, l2_ratio, lambda a, b: matches(a, b, 0.95)])
def test_no_matrix_of_all_pairs_is_held(metric):
    queries, train = normal(20_000, 8, dtype=torch.float32), normal(20_000, 8, seed=1, dtype=torch.float32)
    with Largest() as largest:
        metric(queries, train)
    assert 0 < largest.size <= 1 << 22  # of 4e8 pairs


@pytest.mark.parametrize(
    ("queries", "train", "k", "said"),
    [
        (torch.ones(2, 3), torch.ones(4, 3), 5, "5 nearest"),
        (torch.ones(2, 3), torch.ones(4, 3), 0, "0 nearest"),
        (torch.ones(2, 3), torch.ones(4, 2), 1, r"\(2, 3\) and \(4, 2\)"),
        (torch.ones(0, 3), torch.ones(4, 3), 1, "neither empty"),
        (torch.ones(2, 3), torch.ones(3), 1, r"\(3,\)"),
        (torch.ones(2, 3), torch.eye(4)[:, :3], 1, "training row 3 is zero"),
        (torch.tensor([[1.0, 2], [math.nan, 1]]), torch.ones(4, 2), 1, "query row 1 is not finite"),
    ],
)
def test_nearest_refuses(queries, train, k, said):
    with pytest.raises(Refused, match=said):
        nearest(queries, train, k)


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
    assert ums(pairs[1], 1).interval() is None
    # Two samples of one image: UMS counts it once.
    assert ums(torch.tensor([[4], [4]]), 2) == Count(1, 2)


def test_bands_are_half_open_and_closed_at_one():
    similarity = torch.tensor([0.4, 0.5, 0.6, 1.0, 1.0 + 1e-7])
    assert ams(similarity, 0.4, 0.5) == ams(similarity, 0.5, 0.6) == Count(1, 5)
    assert ams(similarity, 0.6, 1.0) == ams(similarity, 0.6) == Count(3, 5)


def test_matches_equal_the_dense_matrix(small_tiles):
    queries, train = normal(30, 5), normal(41, 5, seed=1)
    dense = unit(queries) @ unit(train).T
    want = ((dense >= 0.3) & (dense < 0.8)).nonzero()
    assert torch.equal(torch.stack(matches(queries, train, 0.3, 0.8), 1), want) and len(want) > 100
    none = matches(queries, train, 0.999999)
    assert none[0].shape == none[1].shape == (0,)


def test_matches_agree_with_nearest_at_the_edge_of_a_band():
    queries, train = normal(300, 40, dtype=torch.float32), normal(300, 40, seed=1, dtype=torch.float32)
    similarity, index = nearest(queries, train)
    for row in range(0, 300, 17):
        level = similarity[row, 0].item()  # the band begins exactly at this pair
        assert torch.stack(matches(queries[row : row + 1], train, level), 1).tolist() == [[0, index[row, 0].item()]]


def test_samples_equal_to_training_points_are_all_memorized():
    train = normal(50, 12, dtype=torch.float32)
    similarity, index = nearest(train, train)
    assert ams(similarity, 0.999, 1.0) == ums(index, 50) == Count(50, 50)
    assert similarity.max() <= 1  # rounded sums of squares are not, some of them
    assert (l2_ratio(train, train) == 0).all()


def test_ums_refuses_what_is_no_index():
    for wrong in (torch.tensor([True, False]), torch.tensor([0.7])):
        with pytest.raises(Refused, match="indices"):
            ums(wrong, 2)


def test_ams_refuses_a_matrix_and_an_empty_band():
    with pytest.raises(Refused, match=r"\(2, 3\)"):
        ams(torch.ones(2, 3), 0.5)
    with pytest.raises(Refused, match="empty"):
        ams(torch.ones(2), 0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l2_ratio_by_brute_force(dtype, small_tiles):
    queries, train = (normal(n, 9, seed=n, dtype=dtype) + 5 for n in (40, 90))
    distance = NearestNeighbors(n_neighbors=2).fit(train).kneighbors(queries)[0]
    want = torch.from_numpy(distance[:, 0] / distance[:, 1]).to(dtype)
    torch.testing.assert_close(l2_ratio(queries, train), want)


@pytest.mark.parametrize("copies", [1, 30])  # 30 fill the first candidates entirely
def test_l2_ratio_passes_over_planted_duplicates(copies):
    train = normal(60, 7)
    planted = torch.cat((train, *[train[:20]] * copies))
    queries = torch.cat((train[:5], train[10:15] + 1e-9, normal(5, 7, seed=3)))
    torch.testing.assert_close(l2_ratio(queries, planted), l2_ratio(queries, train), rtol=1e-6, atol=0)
    assert (l2_ratio(queries[:5], planted) == 0).all() and (l2_ratio(queries[5:10], planted) < 1e-6).all()
    # Near-duplicates need a radius.
    near = torch.cat((train, *[train[:20] + 1e-5] * copies))
    assert (l2_ratio(queries[5:10], near) > 1e-5).all() and (l2_ratio(queries[5:10], near, distinct=1e-3) < 1e-6).all()


def test_l2_ratio_survives_cancellation():
    # In float32, |q|^2 + |x|^2 - 2 q x of rows at 1000 is rounding alone.
    train = 1000 + normal(500, 20)
    queries = train[:100] + 0.05 * normal(100, 20, seed=1)
    train, queries = train.float(), queries.float()
    want = l2_ratio(queries.double(), train.double())
    torch.testing.assert_close(l2_ratio(queries, train).double(), want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("apart", [20.0, 40.0, 2000.0])
def test_l2_ratio_in_tight_groups_far_apart(apart):
    # About any centre the product form confuses a few rows of a group, or all; centred rows lose digits themselves.
    side = torch.where(torch.arange(400) % 2 == 0, 0, apart)[:, None]
    train = (side + 0.01 * normal(400, 20)).float()
    queries = (side[:60] + 0.01 * normal(60, 20, seed=1)).float()
    want = l2_ratio(queries.double(), train.double())
    torch.testing.assert_close(l2_ratio(queries, train).double(), want, rtol=1e-5, atol=0)


def test_l2_ratio_refuses_a_training_set_of_one_image():
    with pytest.raises(Refused, match="lower distinct"):
        l2_ratio(normal(3, 4), torch.ones(50, 4))
    with pytest.raises(Refused, match="not -1"):
        l2_ratio(normal(3, 4), normal(5, 4), distinct=-1)
    with pytest.raises(Refused, match="not finite"):
        l2_ratio(normal(3, 4), torch.full((5, 4), math.nan))


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
