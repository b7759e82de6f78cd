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
from memlib.metrics._proposal import bound
from memlib.shapes import Float, Int
from memlib.stored import Rows as Set
from memlib.stored import at_once, distinct_rows, each, filled, mapped, mean_row

_TILE = 1024  # rows of either set whose product is held at once: it fits into a cache
_SPARE = 8  # neighbours beyond the k-th that are computed exactly: rounding may have swapped them
_CELLS = 1 << 19  # numbers held at once while distances are computed exactly
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
    found, times = distinct_rows(rows)
    if len(found) <= k:
        raise Refused(
            f"{len(rows)} {name} rows are copies of {len(found)}, where k = {k} needs {k + 1} distinct ones: "
            "lower k, or give a set that varies"
        )
    return found, times


def radii(rows: Rows, k: int) -> Float[Tensor, " n"]:
    """Squared distance of each row to its k-th nearest other row, (N,), in float64."""
    everyone = torch.arange(len(rows.exact), device=rows.exact.device)
    found = everyone.new_zeros(len(everyone), dtype=torch.float64)
    kept, best, left = k + _SPARE, None, everyone
    while len(left):
        kept = min(kept, len(everyone) - 1)
        best = _nearest_of_itself(rows, kept) if len(left) == len(everyone) else _nearest(rows, left, kept)
        squares = _exact(rows, rows, left.repeat_interleave(kept), best.index.flatten()).view(-1, kept)
        found[left] = squares.kthvalue(k).values
        # Every row that was left out is at least as far as the last lower bound.
        sure = (best.bound.amax(1) >= found[left] * rows.scale) | (kept == len(everyone) - 1)
        left, kept = left[~sure], 8 * kept
    return found


def held(points: Rows, balls: Rows, square: Float[Tensor, " m"]) -> Held:
    """Points (N, D) in the balls about the rows (M, D) whose squared radii are given."""
    return both(points, balls, points.short.new_full((len(points.exact),), -1.0), square)[1]


def both(a: Rows, b: Rows, square_a: Float[Tensor, " n"], square_b: Float[Tensor, " m"]) -> tuple[Held, Held]:
    """Rows of b (M, D) in the balls of a (N, D), and rows of a in the balls of b; the squared radii are given."""
    device = a.exact.device
    counts = [torch.zeros(len(rows.exact), dtype=torch.long, device=device) for rows in (b, a, a, b)]
    near_a, near_b = ((square * a.scale).float() for square in (square_a, square_b))
    for rows in torch.arange(len(a.exact), device=device).split(a.tile):
        for columns in torch.arange(len(b.exact), device=device).split(a.tile):
            least = _least(a, b, rows, columns)
            i, j = (least <= torch.maximum(near_a[rows, None], near_b[columns])).nonzero(as_tuple=True)
            least, i, j = least[i, j], rows[i], columns[j]
            for which, (square, near, at) in enumerate(((square_a, near_a, i), (square_b, near_b, j))):
                inside = least <= near[at]
                unsure = inside & (least + (a.wide[i] + b.wide[j]) >= near[at])
                p, q = i[unsure], j[unsure]
                inside[unsure] = _exact(a, b, p, q) <= square[at[unsure]] * (1 + _TOUCH)
                one, other = (j, i) if which == 0 else (i, j)  # the point, and the centre of the ball
                for count, places in zip(counts[2 * which :], (one, other), strict=False):
                    count += places[inside].bincount(minlength=len(count))
    return Held(*counts[:2]), Held(*counts[2:])


class _Best(NamedTuple):
    """The smallest lower bounds of each row, (N, K), in no order, and the rows that have them, (N, K)."""

    bound: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]

    def take(self, rows: slice, least: Float[Tensor, "r c"], first: int) -> None:
        """Let the columns of `least`, which begin at row `first`, compete for the places of `rows`."""
        value, place = least.topk(min(self.bound.shape[1], least.shape[1]), largest=False, sorted=False)
        value, place = torch.cat((self.bound[rows], value), 1), torch.cat((self.index[rows], place + first), 1)
        self.bound[rows], order = value.topk(self.bound.shape[1], largest=False, sorted=False)
        self.index[rows] = place.gather(1, order)


def _empty(rows: Rows, count: int, kept: int) -> _Best:
    return _Best(
        rows.short.new_full((count, kept), math.inf),
        torch.zeros(count, kept, dtype=torch.long, device=rows.fast.device),
    )


def _nearest_of_itself(rows: Rows, kept: int) -> _Best:
    """For each row, the `kept` others of smallest bound; each pair of tiles is multiplied once."""
    best, everyone = _empty(rows, len(rows.exact), kept), torch.arange(len(rows.exact), device=rows.exact.device)
    tiles = everyone.split(rows.tile)
    for a, one in enumerate(tiles):
        for b, other in enumerate(tiles[a:], a):
            least = _least(rows, rows, one, other)
            if a == b:
                least.fill_diagonal_(math.inf)
            else:
                best.take(_span(other), least.T, int(one[0]))
            best.take(_span(one), least, int(other[0]))
    return best


def _nearest(rows: Rows, some: Int[Tensor, " s"], kept: int) -> _Best:
    """The same for some of the rows."""
    best = _empty(rows, len(some), kept)
    for start in range(0, len(some), rows.tile):
        one = some[start : start + rows.tile]
        for first in range(0, len(rows.exact), rows.tile):
            other = torch.arange(first, min(first + rows.tile, len(rows.exact)), device=some.device)
            least = _least(rows, rows, one, other)
            least[one[:, None] == other] = math.inf
            best.take(slice(start, start + len(one)), least, first)
    return best


def _span(rows: Int[Tensor, " r"]) -> slice:
    return slice(int(rows[0]), int(rows[-1]) + 1)


def _least(a: Rows, b: Rows, i: Int[Tensor, " n"], j: Int[Tensor, " m"]) -> Float[Tensor, "n m"]:
    """Lower bounds of the scaled squared distances of rows i of a and rows j of b, (n, m)."""
    return torch.addmm(b.short[j], a.fast[i], b.fast[j].T, alpha=-2).add_(a.short[i, None])


def _exact(a: Rows, b: Rows, i: Int[Tensor, " p"], j: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Squared distances |a_i - b_j|^2 from the differences of the rows themselves, (P,), in float64."""
    pairs = zip(*(index.split(max(1, _CELLS // a.exact.shape[1])) for index in (i, j)), strict=True)
    return filled(len(i), ((a.exact[p].double() - b.exact[q]).square().sum(1) for p, q in pairs))
