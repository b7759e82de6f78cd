"""Balls around rows: the distance to the k-th neighbour as radius, and the points that each ball holds, exactly.

A float32 product gives a lower bound on every squared distance. Only pairs that may lie in a ball are looked at again.
Those near its surface are computed from the differences of the rows in float64. One product serves both directions of
a pair of sets, and a set against itself needs half of one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._proposal import below, bound
from memlib.shapes import Bool, Float, Int
from memlib.stored import Rows as Set
from memlib.stored import Stored, at_once, distinct_rows, each, filled, mapped, mean_row

_TILE = 1024  # rows of either set whose product is held at once: it fits into a cache
_SPARE = 8  # neighbours beyond the k-th that are computed exactly: rounding may have swapped them
_CELLS = 1 << 19  # numbers held at once while distances are computed exactly
_GROUP = 8  # adjacent columns whose smallest stands for all at first
_TOUCH = 1e-12  # a point lies on a surface if its squared distance differs by this fraction at most
_TINY = 1e-30  # far above the smallest float32, of rows of length up to 1: below it, products may underflow


class Rows(NamedTuple):
    """Rows (N, D) as they are, and what the product needs: the rows in float32, centred and at most 1 long."""

    exact: Float[Set, "n d"]
    fast: Float[Set, "n d"]
    short: Float[Tensor, " n"]  # squared lengths of `fast`, less the rounding of a squared distance
    wide: Float[Tensor, " n"]  # the sum of two of these lifts a lower bound to an upper bound
    scale: float  # of squared distances between rows of `fast`
    tile: int  # rows whose product is held at once


class Held(NamedTuple):
    """How many balls hold each point, (N,), and how many points each ball holds, (M,)."""

    around: Int[Tensor, " n"]
    inside: Int[Tensor, " m"]


def prepared(*sets: Float[Set, "n d"]) -> list[Rows]:
    """The sets, of one dtype and width, on one centre and one scale."""
    centre = mean_row(sets[0])
    reach = max(float(each(lambda rows: (rows - centre).norm(dim=1), one).max()) for one in sets) or 1.0
    rounding = float(bound(torch.float32, sets[0].shape[1] + 16))  # 16: of the sums around the product
    found = []
    for rows in sets:
        fast = mapped(rows, lambda part: ((part - centre) / reach).float())
        squares = each(lambda part: part.double().square().sum(1), fast)
        short, wide = (1 - 2 * rounding) * squares - _TINY, 4.1 * rounding * squares + 2 * _TINY
        found.append(Rows(rows, fast, short.float(), wide.float(), 1 / reach**2, at_once(_TILE, *sets)))
    return found


def distinct(rows: Float[Set, "n d"], name: str, k: int) -> tuple[Float[Set, "u d"], Int[Tensor, " u"]]:
    """The distinct rows, (U, D), and how often each occurs, (U,); or Refused, where one has no k-th other one."""
    if not 1 <= k < len(rows):
        raise Refused(f"a row has no {k}-th neighbour among {len(rows)} rows: give k from 1 to {len(rows) - 1}")
    found, times = unique(rows)
    if len(found) <= k:
        raise Refused(
            f"{len(rows)} {name} rows are copies of {len(found)}, where k = {k} needs {k + 1} distinct ones: "
            "lower k, or give a set that varies"
        )
    return found, times


def unique(rows: Float[Set, "n d"]) -> tuple[Float[Set, "u d"], Int[Tensor, " u"]]:
    """The distinct rows, (U, D), and how often each occurs, (U,). As they come if all differ, which a sum tells."""
    if isinstance(rows, Stored):
        return distinct_rows(rows)
    bits = (rows + 0.0).view(torch.int64 if rows.dtype is torch.float64 else torch.int32)  # + 0: -0 equals 0
    factors = torch.randint(1 << 62, (rows.shape[1],), generator=torch.Generator().manual_seed(0)).to(rows.device)
    step = max(1, _CELLS // rows.shape[1])
    keys = torch.cat([(part.long() * factors).sum(1) for part in bits.split(step)])  # rows of one key may differ
    if len(keys.unique()) == len(rows):
        return rows, keys.new_ones(len(rows))
    return rows.unique(dim=0, return_counts=True)


def radii(rows: Rows, k: int) -> Float[Tensor, " n"]:
    """Squared distance of each row to its k-th nearest other row, (N,), in float64."""
    everyone = torch.arange(len(rows.exact), device=rows.exact.device)
    found = everyone.new_zeros(len(everyone), dtype=torch.float64)
    kept, best, left = k + _SPARE, None, everyone
    while len(left):
        kept = min(kept, len(everyone) - 1)
        best = _nearest_of_itself(rows, kept) if len(left) == len(everyone) else _nearest(rows, left, kept)
        found[left] = _kth(rows, left, best, k)
        # Every row that was left out is at least as far as the last lower bound.
        sure = (best.bound.amax(1) >= found[left] * rows.scale) | (kept == len(everyone) - 1)
        left, kept = left[~sure], 8 * kept
    return found


def _kth(rows: Rows, some: Int[Tensor, " s"], best: "_Best", k: int) -> Float[Tensor, " s"]:
    """The k-th smallest squared distance of some rows to those in `best`, (S,): only what may be it is computed."""
    least = best.bound.double()
    most = least + (rows.wide[some, None] + rows.wide[best.index]).double()
    low, high = (x.kthvalue(k).values[:, None] for x in (least, most))  # it lies between
    squares = torch.full_like(least, math.inf).masked_fill(most < low, -math.inf)
    row, place = ((most >= low) & (least <= high)).nonzero(as_tuple=True)
    squares[row, place] = _exact(rows, rows, some[row], best.index[row, place])
    return squares.kthvalue(k).values


def held(points: Rows, balls: Rows, square: Float[Tensor, " m"]) -> Held:
    """Points (N, D) in the balls about the rows (M, D) whose squared radii are given."""
    around, inside = _counted(points, balls, [(square, 1)])[0]
    return Held(around, inside)


def both(a: Rows, b: Rows, square_a: Float[Tensor, " n"], square_b: Float[Tensor, " m"]) -> tuple[Held, Held]:
    """Rows of b (M, D) in the balls of a (N, D), and rows of a in the balls of b; the squared radii are given."""
    of_a, of_b = _counted(a, b, [(square_a, 0), (square_b, 1)])
    return Held(*of_a[::-1]), Held(*of_b)


def _counted(
    a: Rows, b: Rows, balls: list[tuple[Float[Tensor, " r"], int]]
) -> list[tuple[Int[Tensor, " n"], Int[Tensor, " m"]]]:
    """For each set of balls the pairs of rows of a and b that lie in one, counted along b, (N,), and along a, (M,).

    A set is given by its squared radii, and by whether its balls are about the rows of a (0) or those of b (1).
    """
    device, out = a.exact.device, _scratch(a)
    none = (torch.zeros(len(x.exact), dtype=torch.long, device=device) for _ in balls for x in (a, b))
    counts = list(zip(none, none, strict=True))  # of a's length, then of b's
    for rows in _tiles(len(a.exact), a.tile):
        for columns in _tiles(len(b.exact), a.tile):
            least = _least(a, b, rows, columns, out)
            wide = (a.wide[rows].amax() + b.wide[columns].amax()).double()
            for (square, axis), (along_a, along_b) in zip(balls, counts, strict=True):
                near = square[columns if axis else rows] * a.scale
                low, high = below(near - wide, torch.float32), -below(-near, torch.float32)
                low, high = (low, high) if axis else (low[:, None], high[:, None])
                sure = least <= low
                i, j = _places((least <= high) ^ sure)
                i, j = rows.start + i, columns.start + j
                inside = _exact(a, b, i, j) <= square[j if axis else i] * (1 + _TOUCH)
                for count, places in ((along_a, i), (along_b, j)):
                    count += places[inside].bincount(minlength=len(count))
                for count, part, more in zip((along_a, along_b), (rows, columns), _totals(sure), strict=True):
                    count[part] += more
    return counts


def _totals(chosen: Bool[Tensor, "n m"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """How many are true in each row, (n,), and in each column, (m,): eight bytes are added as one number."""
    if chosen.shape[1] % 8:
        return chosen.sum(1), chosen.sum(0)
    lanes = chosen.view(torch.int64)  # (n, m / 8); a lane holds up to 255, and a tile has 128 of them side by side
    columns = [part.sum(0).view(torch.uint8).long() for part in lanes.split(128)]
    return lanes.sum(1, keepdim=True).view(torch.uint8).long().sum(1), torch.stack(columns).sum(0)


class _Best(NamedTuple):
    """The smallest lower bounds of each row, (N, K), in no order, and the rows that have them, (N, K)."""

    bound: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]

    def take(self, rows: slice, least: Float[Tensor, "r c"], first: int) -> None:
        """Let the columns of `least`, which begin at row `first`, compete for the places of `rows`."""
        value, place = _smallest(least, self.bound.shape[1])
        value, place = torch.cat((self.bound[rows], value), 1), torch.cat((self.index[rows], place + first), 1)
        self.bound[rows], order = value.topk(self.bound.shape[1], largest=False, sorted=False)
        self.index[rows] = place.gather(1, order)


def _smallest(least: Float[Tensor, "r c"], kept: int) -> tuple[Float[Tensor, "r k"], Int[Tensor, "r k"]]:
    """The `kept` smallest of each row, in no order, and their places; all of them where there are fewer.

    They lie in as many groups of adjacent columns, those whose smallest are smallest.
    """
    count, groups = len(least), least.shape[1] // _GROUP
    if least.shape[1] % _GROUP or groups < 4 * kept:
        return least.topk(min(kept, least.shape[1]), largest=False, sorted=False)
    grouped = least.unflatten(1, (groups, _GROUP))
    group = grouped.amin(2).topk(kept, largest=False, sorted=False).indices  # (r, k)
    few = grouped.gather(1, group[..., None].expand(-1, -1, _GROUP)).view(count, -1)
    value, place = few.topk(kept, largest=False, sorted=False)
    return value, group.gather(1, place // _GROUP) * _GROUP + place % _GROUP


def _empty(rows: Rows, count: int, kept: int) -> _Best:
    return _Best(
        rows.short.new_full((count, kept), math.inf),
        torch.zeros(count, kept, dtype=torch.long, device=rows.short.device),
    )


def _nearest_of_itself(rows: Rows, kept: int) -> _Best:
    """For each row, the `kept` others of smallest bound; each pair of tiles is multiplied once."""
    best, tiles, out = _empty(rows, len(rows.exact), kept), _tiles(len(rows.exact), rows.tile), _scratch(rows)
    for a, one in enumerate(tiles):
        for other in tiles[a:]:
            least = _least(rows, rows, one, other, out)
            if one == other:
                least.fill_diagonal_(math.inf)
            else:
                best.take(other, least.T.contiguous(), one.start)
            best.take(one, least, other.start)
    return best


def _nearest(rows: Rows, some: Int[Tensor, " s"], kept: int) -> _Best:
    """The same for some of the rows."""
    best, out = _empty(rows, len(some), kept), _scratch(rows)
    for one in _tiles(len(some), rows.tile):
        for other in _tiles(len(rows.exact), rows.tile):
            least = _least(rows, rows, some[one], other, out)
            columns = torch.arange(other.start, other.stop, device=some.device)
            least[some[one, None] == columns] = math.inf
            best.take(one, least, other.start)
    return best


def _tiles(count: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def _scratch(rows: Rows) -> Float[Tensor, " p"]:
    """Room for the product of two tiles, (P,)."""
    return rows.short.new_empty(rows.tile**2)


def _least(a: Rows, b: Rows, i: slice | Int[Tensor, " n"], j: slice, out: Float[Tensor, " p"]) -> Float[Tensor, "n m"]:
    """Lower bounds of the scaled squared distances of rows i of a and rows j of b, (n, m), in a part of `out`."""
    one, other, short = a.fast[i], b.fast[j], b.short[j]
    found = out[: len(one) * len(short)].view(len(one), -1)
    return torch.addmm(short, one, other.T, alpha=-2, out=found).add_(a.short[i, None])


def _places(chosen: Bool[Tensor, "n m"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Rows and columns of what is true, (P,): eight of them are looked at as one number, since few are."""
    if chosen.numel() % 8:
        row, column = chosen.nonzero(as_tuple=True)
        return row, column
    eights = chosen.view(-1, 8)
    some = eights.view(torch.int64).nonzero()[:, 0]
    one, place = eights[some].nonzero(as_tuple=True)
    flat = some[one] * 8 + place
    return flat // chosen.shape[1], flat % chosen.shape[1]


def _exact(a: Rows, b: Rows, i: Int[Tensor, " p"], j: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Squared distances |a_i - b_j|^2 from the differences of the rows themselves, (P,), in float64."""
    pairs = zip(*(index.split(max(1, _CELLS // a.exact.shape[1])) for index in (i, j)), strict=True)
    rows = ((_chosen(a.exact, p).double(), _chosen(b.exact, q)) for p, q in pairs)
    return filled(len(i), (one.sub_(other).square_().sum(1) for one, other in rows))


def _chosen(rows: Float[Set, "n d"], places: Int[Tensor, " p"]) -> Float[Tensor, "p d"]:
    return rows[places] if isinstance(rows, Stored) else rows.index_select(0, places)  # faster than an index
