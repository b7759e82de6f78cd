"""The graph of samples that resemble each other: an edge where the cosine of two rows reaches a threshold.

A broken model makes one image thousands of times, and then the edges alone would fill the memory. So the neighbours of
a row are listed where they are few, and found anew by a product where they are many. Memory grows with N alone.
"""

import math

import torch
from torch import Tensor

from memlib.metrics._proposal import bound
from memlib.metrics._search import centre_of
from memlib.metrics.neighbours import _directions, _resembling
from memlib.shapes import Bool, Int, Shaped
from memlib.stored import Rows, at_once

_ROWS = 1024  # rows held at once
_COLUMNS = 2048  # columns held at once
_LISTED = 256  # neighbours of a row up to which they are listed
_WHOLE = 2048  # rows up to which all edges are held, at most 4 MB: a search looks many of them up again


class Graph:
    """Rows (N, D), joined where their cosine is at least `low`. No row is its own neighbour.

    Attributes:
        rows: (N, D), of length 1; on disk if they were given there.
        degree: (N,), the number of neighbours of each row.
    """

    def __init__(self, features: Shaped[Rows, "..."], low: float) -> None:
        self.rows = _directions(features, features)[0]
        self._low, self._centre = low, centre_of(self.rows)
        self._edge = float(bound(self.rows.dtype, self.rows.shape[1]))
        self._high, self._wide = at_once(_ROWS, self.rows), at_once(_COLUMNS, self.rows)
        self._everyone, self._edges = torch.arange(len(self.rows), device=self.rows.device), None
        if len(self.rows) <= _WHOLE:
            strips = [self.joined(rows, self._everyone) for rows in self._everyone.split(self._high)]
            self._edges = torch.cat(strips)
        degrees, lists = zip(*(self._listed(rows) for rows in self._everyone.split(self._high)), strict=True)
        self.degree: Int[Tensor, " n"] = torch.cat(degrees)
        self._neighbours = torch.cat(lists)
        lengths = self.degree.where(self.degree <= _LISTED, 0)
        self._first, self._length = lengths.cumsum(0) - lengths, lengths

    def neighbours(self, row: int) -> Int[Tensor, " k"]:
        """The neighbours of a row, (K,), ascending."""
        if self.degree[row] <= _LISTED:
            start = int(self._first[row])
            return self._neighbours[start : start + int(self._length[row])]
        return self.joined(self._everyone[row : row + 1], self._everyone)[0].nonzero()[:, 0]

    def joined(self, rows: Int[Tensor, " r"], others: Int[Tensor, " c"]) -> Bool[Tensor, "r c"]:
        """Which of the rows (R,) are neighbours of which others (C,), (R, C)."""
        own = self._own(rows)
        return torch.cat([self._joined(own, rows, part) for part in others.split(self._wide)], 1)

    def counted(self, rows: Int[Tensor, " r"], others: Int[Tensor, " c"]) -> Int[Tensor, " r"]:
        """The number of neighbours that each row has among the others, (R,)."""
        counts = torch.zeros_like(rows)
        for total, some in zip(counts.split(self._high), rows.split(self._high), strict=True):
            own = self._own(some)
            for part in others.split(self._wide):
                total += self._joined(own, some, part).sum(1)
        return counts

    def _own(self, rows: Int[Tensor, " r"]) -> Tensor:
        """The values of the rows, (R, D); none, (0, D), where all edges are held, which need no value any more."""
        return self.rows[rows] if self._edges is None else self.rows[:0]

    def _joined(self, own: Tensor, rows: Int[Tensor, " r"], others: Int[Tensor, " c"]) -> Bool[Tensor, "r c"]:
        """`joined`, of the rows (R,), whose values are `own` (R, D), with few others."""
        if self._edges is not None:
            return self._edges[rows[:, None], others]
        found = _resembling(own, self.rows[others], self._centre, self._edge, self._low, math.inf)
        return found & (rows[:, None] != others)

    def _listed(self, rows: Int[Tensor, " r"]) -> tuple[Int[Tensor, " r"], Int[Tensor, " p"]]:
        """The degree of consecutive rows, (R,), and the neighbours, (P,), of those that have few, row after row."""
        own, degree, pairs = self._own(rows), torch.zeros_like(rows), rows.new_empty(2, 0)
        for others in self._everyone.split(self._wide):
            joined = self._joined(own, rows, others)
            degree += joined.sum(1)
            joined &= (degree <= _LISTED)[:, None]
            i, j = joined.nonzero(as_tuple=True)
            pairs = torch.cat((pairs, torch.stack((i, others[j]))), 1)
        pairs = pairs[:, degree[pairs[0]] <= _LISTED]
        return degree, pairs[1][pairs[0].argsort(stable=True)]
