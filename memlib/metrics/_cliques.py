"""Extraction without the training set, after Carlini et al. 2023: what a model repeats, it may have memorized.

Generate many samples, connect those that resemble each other, and take groups in which every two samples resemble each
other (sec. 4.2 there: 500 samples for each prompt, cliques of 10). One sample of each group is a candidate. The
training set is needed only to judge the candidates, by `nearest` or `adaptive_l2`.
"""

from typing import Literal

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics._graph import Graph
from memlib.metrics.neighbours import _direction, _smallest, checked
from memlib.shapes import Float, Int, Shaped
from memlib.stored import Rows, at_once, choose, each, filled, mapped, mean_row

_ROWS = 1024  # queries held at once
_BLOCK = 256  # samples whose neighbours are held at once
_CELLS = 1 << 22  # numbers held at once while distances are computed exactly


@takes_arrays("features")
@torch.no_grad()
def cliques(features: Shaped[Rows, "..."], low: float, size: int = 10) -> list[Int[Tensor, "..."]]:
    """Disjoint groups of at least `size` samples in which every two samples have cosine >= `low`.

    The largest clique of a large graph cannot be computed, so the search is greedy. The sample with the most remaining
    neighbours (of equal ones the lowest index) opens a group. Its neighbours are tried in the order of how many of the
    others they resemble; each joins if it resembles all that have joined. A group of `size` or more is removed from the
    graph, and the next one is opened. Every group is therefore maximal: no sample left over resembles all its members.
    Memory grows with N alone, even where a model has made one image thousands of times.

    Arguments:
        features: (N, D), of generated samples, in memory or on disk.
        low: the smallest cosine of two samples that resemble each other.
        size: the smallest group, 2 or more.

    Returns:
        The groups, largest first, and groups of equal size by their first index. Each is a tensor (n,) of ascending
        indices.

    Raises:
        Refused: for a size below 2, and as `matches` does.
    """
    if size < 2:
        raise Refused(f"a clique of {size} does not repeat anything: give a size of 2 or more")
    graph = Graph(features, low)
    degree, left = graph.degree.clone(), torch.ones(len(features), dtype=torch.bool, device=features.device)
    found = []
    while degree.amax() >= size - 1:
        seed = int(degree.argmax())
        near = graph.neighbours(seed)
        near = near[left[near]]
        group = torch.cat((near.new_tensor([seed]), _clique(graph, near)))
        if len(group) < size:
            degree[seed] = -1  # opens no group any more, but may still join one
            continue
        found.append(group.sort().values)
        left[group] = False
        _release(graph, degree, group)
        degree[group] = -1
    return sorted(found, key=lambda group: (-len(group), int(group[0])))


@takes_arrays("features")
@torch.no_grad()
def medoids(features: Float[Rows, "n d"], groups: list[Int[Tensor, "..."]]) -> Int[Tensor, " g"]:
    """The candidate of each group: the sample that resembles the others most, by mean cosine.

    Arguments:
        features: (N, D), of generated samples.
        groups: G tensors of indices, as `cliques` returns them.

    Returns:
        (G,), an index for each group; the first of those that are equal to rounding, as the two of a pair are.
    """
    best = []
    for group in groups:
        rows = mapped(choose(features, group), _direction)
        mean = mean_row(rows)
        total = each(lambda part, mean=mean: part @ mean, rows)  # with all members; a member's own 1 changes no order
        near = total >= total.max() - 16 * torch.finfo(total.dtype).eps
        best.append(group[near.int().argmax()])
    return torch.stack(best) if best else torch.empty(0, dtype=torch.long, device=features.device)


@takes_arrays("queries", "train")
@torch.no_grad()
def adaptive_l2(
    queries: Shaped[Rows, "..."],
    train: Shaped[Rows, "..."],
    n: int = 50,
    alpha: float = 0.5,
    around: Literal["query", "match"] = "query",
) -> Float[Tensor, " n"]:
    """L2 distance to the nearest training row, over `alpha` times the mean distance of n neighbours.

    Carlini et al. 2023, sec. 5.1, whose n and alpha are the defaults, call a sample extracted if this is at most 1. In
    a dense part of the data, a sample must therefore be nearer to its training image than in a sparse part.

    Arguments:
        queries: (N, D), features or pixels; they are not normalised.
        train: (M, D), the same of the training images.
        n: the number of neighbours, 2 to M.
        alpha: the factor of their mean distance, above 0.
        around: "query" takes the n training rows nearest to the query, as the formula is usually read; the nearest row
            is one of them. "match" takes those nearest to the nearest training row, which is one of them at distance 0.

    Returns:
        (N,), one ratio for each query.

    Raises:
        Refused: for an n outside 2..M, for an alpha that is not positive, and where all n neighbours coincide.
    """
    queries, train = checked(queries, "query", 1, train.shape[-1]), checked(train, "training", 2)
    if not 2 <= n <= len(train) or not alpha > 0:
        raise Refused(f"need 2 <= n <= {len(train)} training rows and alpha > 0, not n = {n} and alpha = {alpha}")
    if around not in ("query", "match"):
        raise Refused(f"neighbours are taken around the 'query' or the 'match', not around {around!r}")
    nearest, index, mean = _neighbours(queries, train, n)
    if around == "match":
        at, back = index.unique(return_inverse=True)
        mean = _neighbours(choose(train, at), train, n)[2][back]
    if (mean == 0).any():
        row = int((mean == 0).nonzero()[0])
        raise Refused(f"query {row}: its {n} neighbours are copies of one image: remove duplicates, or increase n")
    return nearest / (alpha * mean)


def _clique(graph: Graph, near: Tensor) -> Tensor:
    """Those of `near` (k,) that all resemble each other, in the order in which they joined."""
    order = near[graph.counted(near, near).argsort(descending=True, stable=True)]
    open_, chosen = torch.ones(len(near), dtype=torch.bool, device=near.device), []
    places = torch.arange(len(order))
    for some in places.split(at_once(_BLOCK, graph.rows)):
        for place, row in zip(some.tolist(), graph.joined(order[some], order), strict=True):
            if open_[place]:
                chosen.append(place)
                open_ &= row
    return order[chosen]


def _release(graph: Graph, degree: Tensor, group: Tensor) -> None:
    """Take the edges of `group` (k,) out of the degrees (N,), in place."""
    everyone = torch.arange(len(degree), device=degree.device)
    if len(group) > _BLOCK:
        degree -= graph.counted(everyone, group)
    else:
        degree -= torch.cat([graph.neighbours(i) for i in group.tolist()]).bincount(minlength=len(degree))


def _neighbours(queries: Rows, train: Rows, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The distance to the nearest row (N,), its index (N,), and the mean distance to the n nearest (N,).

    A matrix product proposes the n rows; the distances themselves are computed from differences.
    """
    centre = mean_row(train)  # about it, the product form of a distance cancels less
    far = mapped(train, lambda part: part - centre)
    lengths = each(lambda part: part.square().sum(1), far)
    tiles = queries.split(at_once(_ROWS, queries, train))
    proposed = filled(len(queries), (_smallest(tile - centre, far, n, lengths)[1] for tile in tiles))
    step = max(1, _CELLS // (n * train.shape[1]))
    nearest, index, mean = [], [], []
    for rows, places in zip(queries.split(step), proposed.split(step), strict=True):
        distance = (train[places] - rows[:, None]).norm(dim=2)  # (rows, n)
        least, at = distance.min(1)
        nearest.append(least)
        index.append(places.gather(1, at[:, None])[:, 0])
        mean.append(distance.mean(1))
    return torch.cat(nearest), torch.cat(index), torch.cat(mean)
