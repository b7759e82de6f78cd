"""The k nearest rows by cosine, exactly: products propose pairs, and one fixed sum decides.

The fastest matrix product available only proposes. The rounding error of its entries is bounded, and every pair that
could still be among the best is computed again as one fixed sum over the features, in float64. The answer therefore
does not depend on the product that proposed it. On a CPU its bits depend neither on the tiling nor on the number of
threads, and equal training images tie exactly.

With the mean c of the training rows, q x = (q - c)(x - c) + c (x - c) + q c. The last term is common to all
similarities of a query and left out of the search; the second is one number for each training row. So rows that are
nearly equal, as those of a collapsed model are, are told apart by products as well. Equal rows are searched once.
"""

import math

import torch
from torch import Tensor

from memlib.metrics._product import fastest
from memlib.metrics._proposal import BLOCK, Fine, casts, propose, sizes_of
from memlib.stored import Rows, filled

_FIRST = 64  # queries of the first tile, which finds out how fine a product these rows need
_FEW = 64  # proposed blocks per query up to which exact cosines cost less than a finer product


def search(queries: Tensor, train: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each query (N, D) with training rows (M, D), all of length 1: float64 (N, k), largest
    first and of equal ones the lowest index first, and their indices (N, k)."""
    centre = centre_of(train)
    value, index, crowded = _stream(queries, train, centre, k)
    if len(crowded):  # too many rows are equally near: copies of one image, as a rule
        rows, owner = _distinct(train)
        best, at, _ = _stream(queries[crowded], rows, centre, min(k, len(rows)), whatever_it_costs=True)
        step = max(1, sizes_of(train.device).cells // (k * best.shape[1]))
        parts = zip(crowded.split(step), best.split(step), at.split(step), strict=True)
        for some, values, places in parts:
            value[some], index[some] = _with_copies(values, places, owner, k)
    return value, index


def centre_of(train: Rows) -> Tensor:
    """The mean of the rows (M, D), (D,), as a float64 vector that the dtype of the rows holds exactly."""
    step = max(1, sizes_of(train.device).cells // train.shape[1])
    total = torch.zeros(train.shape[1], dtype=torch.float64, device=train.device)
    for part in train.split(step):
        total += part.double().sum(0)  # three times as fast as a sum that casts
    return (total / len(train)).to(train.dtype).double()


def cosines(tile: Tensor, train: Tensor, centre: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Cosines of the pairs (i, j) of rows of `tile` (n, D) and `train` (M, D), (P,), in float64 within [-1, 1]."""
    return (_sums(tile, train, centre, i, j) + (_along(tile, centre) + centre @ centre)[i]).clamp(-1, 1)


def _stream(
    queries: Tensor, train: Tensor, centre: Tensor, k: int, whatever_it_costs: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`search`, tile by tile; and the queries (n,) that were left out because too many rows are equally near."""
    (count, width), sizes = train.shape, sizes_of(train.device)
    if count % BLOCK:
        train = torch.cat((train, train[-1:].expand(-count % BLOCK, -1)))  # repeats change no maximum over a block
    lift = _along(train, centre)  # (M,)
    lift, level_of_all = lift - lift.mean(), lift.mean()
    copies, reach = casts(train, centre, lift)
    multiply = fastest(train, len(queries))
    value = torch.empty(len(queries), k, dtype=torch.float64, device=queries.device)
    index = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    everyone, crowded, level = torch.arange(len(queries), device=queries.device), [], 0
    for whole in filter(len, (everyone[:_FIRST], *everyone[_FIRST:].split(sizes.rows))):
        left = whole
        for step in range(level, len(copies) + 1):
            tile = queries[left].double() - centre
            length = tile.norm(dim=1)
            # Of `lift` and of the sums that decide.
            last = 2 * width * torch.finfo(torch.float64).eps * reach
            if step < len(copies):
                parts, lifts = copies[step].rows.split(sizes.columns), copies[step].lift
                rows, spoilt = copies[step].meets(tile, reach)
                again, spoilt_again = copies[-1].meets(tile, reach)
                fine = Fine(copies[-1], again, spoilt_again + last, reach, length)
            else:  # the last: float64, of the rows themselves
                parts = (part.double() - centre for part in train.split(sizes.columns))
                rows, lifts, spoilt, fine = tile, lift, torch.zeros_like(length), None
            proposed, floor = propose(rows, parts, lifts, k, spoilt + last, reach * length, multiply)
            few = proposed.sum(0) <= max(_FEW, 2 * k)
            if step < len(copies) and 2 * few.sum() < len(few):
                level = step + 1  # the rows are too similar for this product: the next tiles skip it
            if step == len(copies) and whatever_it_costs:
                few = torch.ones_like(few)
            done, left = left[few], left[~few]
            if len(left):
                proposed, floor = proposed[:, few], floor[few]
                fine = fine and fine.of(few)
            value[done], index[done] = _settle(
                queries[done], train, centre, count, proposed, floor, level_of_all, k, fine
            )
            if not len(left):
                break
        crowded.append(left)
        if 2 * len(left) > len(whole):  # and so are the next tiles
            crowded.append(everyone[everyone > whole[-1]])
            break
    return value, index, torch.cat(crowded)


def _settle(
    tile: Tensor,
    train: Tensor,
    centre: Tensor,
    count: int,
    proposed: Tensor,
    floor: Tensor,
    level: Tensor,
    k: int,
    fine: Fine | None,
) -> tuple[Tensor, Tensor]:
    """The k nearest of the first `count` training rows among the proposed blocks: cosines (n, k) and indices (n, k).

    `floor` (n,) and the products of `fine` are without the mean `level` of the lifts.
    """
    if len(tile) > 1 and proposed.sum() > sizes_of(tile.device).pairs:
        halves = torch.arange(len(tile), device=tile.device).chunk(2)
        found = [
            _settle(tile[h], train, centre, count, proposed[:, h], floor[h], level, k, fine and fine.of(h))
            for h in halves
        ]
        return torch.cat([value for value, _ in found]), torch.cat([j for _, j in found])
    block, i = proposed.nonzero(as_tuple=True)
    if fine:
        pair, place = fine.reaches(floor, i, block).nonzero(as_tuple=True)
        i, j = i[pair], block[pair] * BLOCK + place
    else:
        i, j = i.repeat_interleave(BLOCK), (block[:, None] * BLOCK + torch.arange(BLOCK, device=i.device)).flatten()
    i, j = i[j < count], j[j < count]
    value = _sums(tile, train, centre, i, j)
    near = value >= (floor + level)[i]
    value, i, j = value[near], i[near], j[near]
    order = value.argsort(descending=True, stable=True)  # pairs are sorted by j: of equal values the lowest comes first
    order = order[i[order].argsort(stable=True)]
    first = i.bincount(minlength=len(tile)).cumsum(0) - i.bincount(minlength=len(tile))
    chosen = order[first[:, None] + torch.arange(k, device=tile.device)]
    return (value[chosen] + (_along(tile, centre) + centre @ centre)[:, None]).clamp(-1, 1), j[chosen]


def _sums(tile: Tensor, train: Tensor, centre: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Products of the rows i of `tile` (n, D) with the rows j of `train` (M, D) about the centre, (P,).

    Each is one sum over the features in float64, whose order depends only on D.
    """
    step = max(1, sizes_of(tile.device).cells // train.shape[1])
    pairs = zip(*(index.split(step) for index in (i, j)), strict=True)
    rows = ((tile.index_select(0, a).double(), train.index_select(0, b).double()) for a, b in pairs)
    return filled(len(i), (_row_sums((other - centre) * one) for one, other in rows))


def _along(rows: Tensor, centre: Tensor) -> Tensor:
    """The product of the centre with each row of (n, D) less the centre, (n,): one sum over features, in float64."""
    step = max(1, sizes_of(rows.device).cells // len(centre))
    return filled(len(rows), (_row_sums((part.double() - centre) * centre) for part in rows.split(step)))


def _row_sums(terms: Tensor) -> Tensor:
    """The sum of each row (n, D), (n,). A single row, which threads might share, is summed as one of two."""
    return terms.sum(1) if len(terms) != 1 else terms.expand(2, -1).sum(1)[:1]


def _distinct(train: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of (M, D), in the order in which they come first, and which of them each row is, (M,)."""
    _, owner = train.unique(dim=0, return_inverse=True)
    places = torch.arange(len(train), device=train.device)
    first = places.new_full((int(owner.max()) + 1,), len(train)).scatter_reduce(0, owner, places, "amin")
    order = first.argsort()
    return train[first[order]], order.argsort()[owner]


def _with_copies(value: Tensor, place: Tensor, owner: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows, from the nearest distinct ones: cosines (n, f) and places (n, f), and owners (M,)."""
    by_owner, counts = owner.argsort(stable=True), owner.bincount()
    nth = torch.arange(k, device=place.device)
    slots = (counts.cumsum(0) - counts)[place][..., None] + nth  # (n, f, k): the first k copies of each
    there = nth < counts[place][..., None]
    index = by_owner[slots.clamp(max=len(owner) - 1)].masked_fill(~there, len(owner)).flatten(1)
    values = value[..., None].expand_as(there).masked_fill(~there, -math.inf).flatten(1)
    index, order = index.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], index.gather(1, order)[:, :k]
