"""Repeated samples against networkx and a plain reading of the greedy order; the adaptive distance by hand."""

import sys

import networkx
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from memlib.errors import Refused
from memlib.metrics import _graph, adaptive_l2, cliques, medoids, nearest


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph(features, low):
    """The pairs at or above `low`, by a full matrix."""
    rows = features / features.norm(dim=1, keepdim=True)
    pairs = (rows @ rows.T >= low).fill_diagonal_(False)
    return networkx.from_numpy_array(pairs.numpy())


def planted(sizes, width=40, spread=0.02, seed=0):
    """Rows around orthogonal directions, `sizes` of each, shuffled: complete components; and the groups, as sets."""
    rows = torch.eye(width, dtype=torch.float64)[: len(sizes)].repeat_interleave(torch.tensor(sizes), 0)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = (rows + spread * normal(*rows.shape, seed=seed))[order]
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[order]
    groups = [set((owner == group).nonzero()[:, 0].tolist()) for group in range(len(sizes))]
    return rows * normal(len(rows), 1, seed=1).exp(), groups


def test_repeated_samples_are_found_whole_largest_first():
    rows, groups = planted([3, 12, 1, 5, 12, 2, 4])
    found = cliques(rows, 0.8, 4)
    assert [len(group) for group in found] == [12, 12, 5, 4]
    assert {frozenset(group.tolist()) for group in found} == {frozenset(g) for g in groups if len(g) >= 4}
    assert int(found[0][0]) < int(found[1][0])  # equal sizes by first index
    assert all((group.diff() > 0).all() for group in found)
    wanted = {frozenset(clique) for clique in networkx.find_cliques(graph(rows, 0.8)) if len(clique) >= 4}
    assert {frozenset(group.tolist()) for group in found} == wanted


def greedy(edges, size):
    """The documented order, in sets."""
    left, spent, found = set(edges), set(), []
    while True:
        degree = {v: len(set(edges[v]) & left) for v in sorted(left - spent)}
        if not degree or max(degree.values()) < size - 1:
            return sorted((sorted(group) for group in found), key=lambda group: (-len(group), group[0]))
        seed = max(degree, key=lambda v: (degree[v], -v))
        near = set(edges[seed]) & left
        group = [seed]
        for v in sorted(near, key=lambda v: (-len(set(edges[v]) & near), v)):
            if all(v in edges[u] for u in group):
                group.append(v)
        if len(group) < size:
            spent.add(seed)
        else:
            found.append(group)
            left -= set(group)


@pytest.mark.parametrize("listed", [256, 20, 0])  # neighbours up to which they are kept rather than found anew
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("low", [0.5, 0.8])
def test_where_groups_overlap_the_order_is_the_documented_one(seed, low, listed, monkeypatch):
    monkeypatch.setattr(_graph, "_LISTED", listed)
    monkeypatch.setattr(_graph, "_ROWS", 64)
    monkeypatch.setattr(_graph, "_COLUMNS", 48)
    monkeypatch.setattr(sys.modules[cliques.__module__], "_BLOCK", 10)
    rows, size = normal(150, 4, seed=seed), 4
    edges = graph(rows, low)
    found = [group.tolist() for group in cliques(rows, low, size)]
    assert found == greedy(edges, size) and len(found) > 1
    taken = [v for group in found for v in group]
    assert len(set(taken)) == len(taken)
    for group in found:
        assert all(edges.has_edge(u, v) for u in group for v in group if u != v)
        assert not any(all(edges.has_edge(v, u) for u in group) for v in set(edges) - set(taken))


def test_one_image_in_half_of_all_samples_takes_no_quadratic_memory():
    rows = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    rows[::2] = rows[:1] + 0.01 * rows[::2]
    listed = _graph.Graph(rows, 0.95)
    assert int(listed.degree.amax()) == 1999 and len(listed._neighbours) < 40 * len(rows)  # of 4,000,000 edges
    (group,) = cliques(rows, 0.95, 100)
    assert group.tolist() == list(range(0, 4000, 2))


def test_a_hub_that_joins_strangers_makes_no_group():
    # Row 0 resembles all others, who resemble nobody else: a component of 6, but no clique of 3.
    others = torch.eye(6, dtype=torch.float64)[1:]
    hub = others.sum(0, keepdim=True)
    assert cliques(torch.cat((hub, others)), 0.4, 3) == []
    assert [group.tolist() for group in cliques(torch.cat((hub, others)), 0.4, 2)] == [[0, 1]]


def test_nothing_repeats_and_everything_does():
    assert cliques(torch.eye(5), 0.5, 2) == []
    (everything,) = cliques(torch.ones(30, 3), 0.99, 10)
    assert everything.tolist() == list(range(30))
    with pytest.raises(Refused, match="2 or more"):
        cliques(torch.eye(5), 0.5, 1)


def test_a_candidate_is_what_its_group_has_in_common():
    angle = torch.tensor([0.0, 0.3, 0.4, 0.9, 3.0, 3.1, 3.1], dtype=torch.float64)
    rows = torch.stack((angle.cos(), angle.sin()), 1) * torch.tensor([[9.0], [1], [2], [30], [1], [1], [1]])
    groups = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6])]
    assert medoids(rows, groups).tolist() == [2, 5]  # 0.4 lies amid 0 to 0.9 though 0.9 is the longest row
    assert medoids(rows, []).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_pair_the_first_is_the_candidate_whatever_rounding_says(dtype):
    rows = normal(400, 40).to(dtype)
    pairs = list(torch.randperm(400, generator=torch.Generator().manual_seed(1)).view(-1, 2))
    assert medoids(rows, pairs).tolist() == [int(pair[0]) for pair in pairs]


def test_candidates_find_what_was_memorized():
    members, held_out = normal(40, 20), normal(40, 20, seed=1)
    drawn = members[torch.arange(5).repeat_interleave(12)] + 0.1 * normal(60, 20, seed=2)
    samples = torch.cat((held_out, drawn))[torch.randperm(100, generator=torch.Generator().manual_seed(3))]
    groups = cliques(samples, 0.9, 10)
    _, index = nearest(samples[medoids(samples, groups)], members)
    assert sorted(index[:, 0].tolist()) == [0, 1, 2, 3, 4]


def test_adaptive_l2_by_hand():
    train = torch.tensor([[0.0], [1.0], [3.0], [10.0]], dtype=torch.float64)
    queries = torch.tensor([[0.2], [8.0], [3.0]], dtype=torch.float64)
    # Distances from the queries to the three nearest: .2 .8 2.8, 2 5 7, 0 2 3.
    want = torch.tensor([0.2 / (3.8 / 3 / 2), 2 / (14 / 3 / 2), 0.0], dtype=torch.float64)
    torch.testing.assert_close(adaptive_l2(queries, train, 3), want)
    torch.testing.assert_close(adaptive_l2(queries, train, 3, 0.25), 2 * want)
    # From their matches 0, 10 and 3: 0 1 3, 0 7 9, 0 2 3.
    want = torch.tensor([0.2 / (4 / 3 / 2), 2 / (16 / 3 / 2), 0.0], dtype=torch.float64)
    torch.testing.assert_close(adaptive_l2(queries, train, 3, around="match"), want)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_adaptive_l2_by_scikit_learn(shift, monkeypatch):
    monkeypatch.setattr(sys.modules[cliques.__module__], "_CELLS", 2000)  # several tiles
    monkeypatch.setattr(sys.modules[cliques.__module__], "_ROWS", 32)
    queries, train = normal(70, 12) + shift, normal(200, 12, seed=1) + shift
    index = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(train)
    distance, found = index.kneighbors(queries)
    mean = torch.from_numpy(distance.mean(1))
    torch.testing.assert_close(adaptive_l2(queries, train, 20), torch.from_numpy(distance[:, 0]) / (0.5 * mean))
    around = torch.from_numpy(index.kneighbors(train[found[:, 0]])[0].mean(1))
    want = torch.from_numpy(distance[:, 0]) / (0.5 * around)
    torch.testing.assert_close(adaptive_l2(queries, train, 20, around="match"), want)
    single = adaptive_l2(queries.float(), train.float(), 20)
    torch.testing.assert_close(single, adaptive_l2(queries.float().double(), train.float().double(), 20).float())


def test_adaptive_l2_refuses_what_has_no_answer():
    train = normal(10, 3)
    for wrong in ({"n": 1}, {"n": 11}, {"n": 5, "alpha": 0.0}):
        with pytest.raises(Refused, match="2 <= n <= 10"):
            adaptive_l2(train, train, **wrong)
    with pytest.raises(Refused, match="copies of one image"):
        adaptive_l2(train[:1], train[:1].expand(10, 3), 5)
    with pytest.raises(Refused, match="query.*match"):
        adaptive_l2(train, train, 5, around="sample")
    with pytest.raises(Refused, match=r"\(N, 3\)"):
        adaptive_l2(normal(4, 2), train, 5)
