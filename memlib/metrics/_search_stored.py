"""The search of `_search` where a side is on disk: the training rows pass by in parts, and only the best are kept.

A float32 product of each part proposes the pairs that may be among the k best so far. Each of these is computed by the
same fixed sum about the same centre, so every cosine has the bits that it has in memory.
"""

import torch
from torch import Tensor

from memlib.metrics._proposal import bound
from memlib.metrics._search import _along, _sums, centre_of
from memlib.stored import Rows, at_once, parts

_ROWS = 1024  # queries that are compared with a part at once, at most


def search_stored(queries: Rows, train: Rows, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each query (N, D) with training rows (M, D), all of length 1: float64 (N, k), largest
    first and of equal ones the lowest index first, and their indices (N, k)."""
    centre, first = centre_of(train), 0
    values, indices = torch.empty(len(queries), k, dtype=torch.float64), torch.empty(len(queries), k).long()
    for tile in queries.split(at_once(_ROWS, queries, train)):
        rows = slice(first, first + len(tile))
        values[rows], indices[rows] = _best(tile, train, centre, k)
        first += len(tile)
    return values, indices


def _best(tile: Tensor, train: Rows, centre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same for a few queries (n, D)."""
    exact = tile.double() - centre
    fast, length, first = exact.float(), exact.norm(dim=1), 0
    lost = (exact - fast).norm(dim=1)
    del exact
    value, index = torch.empty(len(tile), 0, dtype=torch.float64), torch.empty(len(tile), 0, dtype=torch.long)
    for part in parts(train):
        particular, lift = part.float() - centre.float(), _along(part, centre)
        product = (fast @ particular.T).double() + lift
        reach = particular.norm(dim=1).max().double()
        error = bound(torch.float32, tile.shape[1], lost * reach, product.abs().amax(1), reach * length)
        edge = value[:, k - 1] if value.shape[1] >= k else torch.full_like(length, -torch.inf)
        i, j = (product >= (edge - 2 * error)[:, None]).nonzero(as_tuple=True)
        count = i.bincount(minlength=len(tile))
        place = torch.arange(len(i)) - (count.cumsum(0) - count)[i]
        more = torch.full((len(tile), int(count.max())), -torch.inf, dtype=torch.float64)
        at = torch.zeros_like(more, dtype=torch.long)
        more[i, place] = _sums(tile, part, centre, i, j)
        at[i, place] = j + first
        value, order = torch.cat((value, more), 1).sort(dim=1, descending=True, stable=True)  # the lowest index first
        value, index = value[:, :k], torch.cat((index, at), 1).gather(1, order)[:, :k]
        first += len(part)
    return (value + (_along(tile, centre) + centre @ centre)[:, None]).clamp(-1, 1), index
