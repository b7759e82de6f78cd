"""Neighbours by cosine and by L2 against faiss, scikit-learn and brute force, and what makes them exact."""

import math
import time

import faiss
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from memlib.errors import Refused
from memlib.metrics import Count, _product, _proposal, _search, ams, l2_ratio, matches, nearest, neighbours, ums


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
    monkeypatch.setattr(_search, "_FIRST", 3)
    monkeypatch.setattr(_proposal, "_CPU", _proposal._Sizes(rows=7, columns=16, cells=64, pairs=40))


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
    monkeypatch.setattr(_proposal, "_products", lambda train: [torch.bfloat16, dtype])
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
        assert (error <= _proposal.bound(dtype, width, lost, product.abs())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_neighbours_do_not_depend_on_the_product_that_proposes(dtype, shift, monkeypatch):
    """torch's float32, NumPy's and bfloat16 give the same bits, and they are those of the matrix of all pairs."""
    queries, train = (normal(n, 24, seed=n, dtype=dtype) + shift for n in (150, 12_001))
    found = []
    for multiply in (_product.by_torch, _product.by_numpy):
        for dtypes in ([torch.bfloat16, torch.float32], [torch.float32]):
            monkeypatch.setattr(_search, "fastest", lambda train, count, multiply=multiply: multiply)
            monkeypatch.setattr(_proposal, "_products", lambda train, dtypes=dtypes: dtypes)
            found.append(nearest(queries, train, 5))
    for similarity, index in found[1:]:
        assert torch.equal(similarity, found[0][0]) and torch.equal(index, found[0][1])
    exact = unit(queries).double() @ unit(train).double().T
    want = exact.topk(5)
    assert (exact.gather(1, found[0][1]) - want.values).abs().max() < 1e-6
    if dtype is torch.float64:
        assert torch.equal(found[0][1], want.indices)


def test_a_long_search_tries_both_products(monkeypatch):
    train = torch.empty(1_000_000, 512, device="meta")
    assert _product.fastest(train, 1_000_000) is _product.by_torch  # not on a CPU
    train = torch.empty(1, 1).expand(1_000_000, 512)
    for faster, product in ((True, _product.by_numpy), (False, _product.by_torch)):
        monkeypatch.setattr(_product, "_numpy_is_faster", lambda threads, faster=faster: faster)
        assert _product.fastest(train, 1000) is product
        assert _product.fastest(train, 10) is _product.by_torch  # the trial would take longer than the search


def test_the_trial_leaves_threads_and_generators_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert _product._numpy_is_faster.__wrapped__(threads) in (True, False)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_ties_take_the_lowest_index_in_any_tiling(small_tiles, monkeypatch):
    rows = normal(31, 48, dtype=torch.float32)
    train = torch.cat((rows, rows, rows))
    similarity, index = nearest(rows, train, 3)
    assert index.tolist() == [[i, i + 31, i + 62] for i in range(31)]
    assert (similarity == similarity[:, :1]).all()
    monkeypatch.setattr(_proposal, "_CPU", _proposal._Sizes(rows=1024, columns=1024, cells=1 << 19, pairs=1 << 16))
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
    with pytest.raises(Refused, match="query 0: no training row is farther than 0.0 from its nearest: they are one"):
        l2_ratio(normal(3, 4), torch.ones(50, 4))
    with pytest.raises(Refused, match="farther than 9 from its nearest: lower distinct"):
        l2_ratio(normal(3, 4), normal(50, 4), 9)
    with pytest.raises(Refused, match="not -1"):
        l2_ratio(normal(3, 4), normal(5, 4), distinct=-1)
    with pytest.raises(Refused, match="not finite"):
        l2_ratio(normal(3, 4), torch.full((5, 4), math.nan))


def near(n, width, spread, seed, dtype=torch.float32):
    """Rows as of a collapsed model: one row, and little around it."""
    return normal(1, width).to(dtype) + spread * normal(n, width, seed=seed, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_rows_are_told_apart(spread, dtype):
    queries, train = near(150, 40, spread, 1, dtype), near(600, 40, spread, 2, dtype)
    similarity, index = nearest(queries, train, 3)
    q, x = unit(queries).double(), unit(train).double()  # about the mean, so that float64 has digits left
    exact = (q - x.mean(0)) @ (x - x.mean(0)).T + (x - x.mean(0)) @ x.mean(0)
    want = exact.topk(3)
    gap = exact.gather(1, index) - want.values
    assert gap.abs().max() < 1e-10 * spread
    torch.testing.assert_close(similarity.double(), (q @ x.T).gather(1, index).clamp(max=1), atol=1e-7, rtol=0)
    near_end = float(similarity[7, 0])
    i, j = matches(queries[7:8], train, near_end)
    assert index[7, 0] in j and (nearest(queries[7:8], train, len(j))[0] >= near_end).all()


def test_equal_rows_are_searched_once_and_all_come_back(small_tiles):
    """Copies of rows that fill far more blocks than are computed one by one: as in a matrix of all pairs."""
    rows = normal(5, 8)
    train = rows[torch.randint(5, (1500,), generator=torch.Generator().manual_seed(0))]
    similarity, index = nearest(rows, train, 7)
    for query in range(5):
        same = (train == rows[query]).all(1).nonzero()[:7, 0]
        assert index[query].tolist() == same.tolist() and (similarity[query] == similarity[query, 0]).all()
    few = torch.cat((normal(1, 8, seed=3).repeat(900, 1), rows))
    dense = unit(few) @ unit(few).T
    similarity, index = nearest(few[::100], few, 905)
    torch.testing.assert_close(similarity, dense[::100].sort(1, descending=True).values)
    assert [sorted(row) for row in index.tolist()] == [list(range(905))] * len(index)
    assert index[0, :900].tolist() == list(range(900))


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
def test_a_collapsed_model_costs_no_more_than_another(spread):
    """3,000 rows among 3,000 nearly equal ones took 23 s and 5.7 GB: now about as long as rows that differ."""
    seconds, largest = {}, {}
    for name, how in (("other", 1.0), ("collapsed", spread)):
        queries, train = near(3000, 64, how, 1), near(3000, 64, how, 2)
        for metric in (nearest, lambda q, x: matches(q, x, 2.0)):
            start = time.process_time()
            with Largest() as most:
                metric(queries, train)
            seconds[name] = seconds.get(name, 0) + time.process_time() - start
            largest[name] = max(largest.get(name, 0), most.size)
    assert largest["collapsed"] <= 1 << 22
    assert seconds["collapsed"] < 3 * seconds["other"] + 0.5


@pytest.mark.parametrize(("spread", "distinct"), [(0.0, 0.0), (1e-6, 1.0)])
def test_l2_ratio_of_one_image_is_refused_at_once(spread, distinct):
    rows, start = near(3000, 256, spread, 1), time.process_time()
    with pytest.raises(Refused, match="no training row is farther"):
        l2_ratio(rows, rows, distinct)
    assert time.process_time() - start < 5  # 23 s


def test_l2_ratio_of_nearly_equal_rows_to_distant_queries():
    queries, train = normal(60, 30).float(), near(900, 30, 1e-5, 2)
    want = l2_ratio(queries.double(), train.double())
    torch.testing.assert_close(l2_ratio(queries, train).double(), want, rtol=1e-5, atol=0)
