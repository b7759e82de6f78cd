"""Extraction without the training set, as Carlini et al. 2023 did it: what a model repeats, it may have memorized.

Generate many samples, join those that resemble each other, and take groups in which everybody resembles everybody
(sec. 4.2 there: 500 samples a prompt, cliques of 10). One sample of each group is a candidate, and only judging the
candidates, by `nearest` or `adaptive_l2`, needs the training set.
"""

from typing import Literal

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.neighbours import _smallest, checked, matches

_ROWS = 1024  # queries held at once
_CELLS = 1 << 22  # numbers held at once while distances are computed again


@torch.no_grad()
def cliques(features: Tensor, low: float, size: int = 10) -> list[Tensor]:
    """Disjoint groups of at least `size` samples with cosine >= `low` between any two, largest first, (n,) each.

    features (N, D), of generated samples; a group is their indices, ascending. Groups of equal size come by their
    first index. The largest clique of a graph is out of reach for large ones, so the search is greedy: the sample with
    most resembling samples left (the lowest index among equals) opens a group; these join it in the order of how many
    of one another they resemble, each if it resembles all that have joined; a group of `size` is taken out of the
    graph, and the next is opened. Every group is thus maximal: no sample left over resembles all its members.
    Memory: the pairs above `low`, and k^2 bytes where a sample resembles k others.
    Raises Refused for a size below 2, and as `matches` does.
    """
    if size < 2:
        raise Refused(f"a clique of {size} is no repetition: give a size of 2 or more")
    one, other = matches(features, features, low)
    apart = one != other
    one, other = one[apart], other[apart]  # both directions of each pair, ordered by `one`
    degree = one.bincount(minlength=len(features))
    first = degree.cumsum(0) - degree
    count, left = degree.clone(), torch.ones_like(degree, dtype=torch.bool)
    found = []
    while (degree.amax() if len(one) else 0) >= size - 1:
        seed = int(degree.argmax())
        near = other[first[seed] : first[seed] + count[seed]]
        near = near[left[near]]
        group = torch.cat((near.new_tensor([seed]), near[_clique(near, other, first, count)]))
        if len(group) < size:
            degree[seed] = -1  # opens no group, may still join one
            continue
        found.append(group.sort().values)
        left[group] = False
        freed = torch.cat([other[first[i] : first[i] + count[i]] for i in group.tolist()])
        degree -= freed.bincount(minlength=len(degree))
        degree[group] = -1
    return sorted(found, key=lambda group: (-len(group), int(group[0])))


@torch.no_grad()
def medoids(features: Tensor, groups: list[Tensor]) -> Tensor:
    """The sample of each group that resembles the others most, by mean cosine, (G,): a group's candidate.

    features (N, D), groups as `cliques` returns them. The lowest index among equals.
    """
    rows = [features[group] / features[group].norm(dim=1, keepdim=True) for group in groups]
    # The sum of cosines to all members is one product; a member's own 1 changes no order.
    best = [group[(row @ row.sum(0)).argmax()] for group, row in zip(groups, rows, strict=True)]
    return torch.stack(best) if best else torch.empty(0, dtype=torch.long, device=features.device)


@torch.no_grad()
def adaptive_l2(
    queries: Tensor,
    train: Tensor,
    n: int = 50,
    alpha: float = 0.5,
    around: Literal["query", "match"] = "query",
) -> Tensor:
    """L2 distance to the nearest training row over `alpha` times the mean distance of n neighbours, (N,).

    queries (N, D), train (M, D), not normalised; at most 1 is "extracted" by Carlini et al. 2023, sec. 5.1, whose n
    and alpha these are. An image in a dense part of the data must so lie nearer than one in a sparse part. The
    neighbours are the n training rows nearest to the query, as the formula is mostly read (the nearest is one of
    them), or, around="match", nearest to its nearest training row (which is then one of them, at distance 0). Raises
    Refused for an n outside 2..M, for an alpha that is not positive, and where all n neighbours coincide.
    """
    queries, train = checked(queries, "query", 1, train.shape[-1]), checked(train, "training", 2)
    if not 2 <= n <= len(train) or not alpha > 0:
        raise Refused(f"need 2 <= n <= {len(train)} training rows and alpha > 0, not n = {n} and alpha = {alpha}")
    if around not in ("query", "match"):
        raise Refused(f"neighbours are those of the 'query' or of the 'match', not of {around!r}")
    nearest, index, mean = _neighbours(queries, train, n)
    if around == "match":
        at, back = index.unique(return_inverse=True)
        mean = _neighbours(train[at], train, n)[2][back]
    if (mean == 0).any():
        row = int((mean == 0).nonzero()[0])
        raise Refused(f"query {row}: its {n} neighbours are copies of one image: remove duplicates, or raise n")
    return nearest / (alpha * mean)


def _clique(near: Tensor, other: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Positions in `near` (k,), ascending, of rows that all resemble each other, in the order in which they joined."""
    rows, lengths = first[near], count[near]
    owner = torch.arange(len(near), device=near.device).repeat_interleave(lengths)
    entry = torch.arange(len(owner), device=near.device) - (lengths.cumsum(0) - lengths)[owner] + rows[owner]
    place = torch.searchsorted(near, other[entry]).clamp(max=len(near) - 1)
    inside = near[place] == other[entry]
    joined = torch.zeros(len(near), len(near), dtype=torch.bool, device=near.device)
    joined[owner[inside], place[inside]] = True
    open_ = torch.ones(len(near), dtype=torch.bool, device=near.device)
    chosen = []
    for i in joined.sum(1).argsort(descending=True, stable=True).tolist():
        if open_[i]:
            chosen.append(i)
            open_ &= joined[i]
    return torch.tensor(chosen, dtype=torch.long, device=near.device)


def _neighbours(queries: Tensor, train: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distance to the nearest row (N,), its index (N,), and the mean distance to the n nearest (N,).

    A matrix product proposes the n; the distances themselves are computed from differences.
    """
    centre = train.mean(0)  # about which the product form cancels less
    far = train - centre
    proposed = [_smallest(tile - centre, far, n)[1] for tile in queries.split(_ROWS)]
    step = max(1, _CELLS // (n * train.shape[1]))
    nearest, index, mean = [], [], []
    for rows, places in zip(queries.split(step), torch.cat(proposed).split(step), strict=True):
        distance = (train[places] - rows[:, None]).norm(dim=2)  # (rows, n)
        least, at = distance.min(1)
        nearest.append(least)
        index.append(places.gather(1, at[:, None])[:, 0])
        mean.append(distance.mean(1))
    return torch.cat(nearest), torch.cat(index), torch.cat(mean)
