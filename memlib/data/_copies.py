"""Which images of a set are copies of one another: equal in every pixel, or nearly so at a stated distance."""

from hashlib import sha256

import numpy
import torch
from torch import Tensor

from memlib.stored import Rows, Stored, choose, few, filled, parts

NEAR = 0.1  # see `copies`

_CELLS = 5  # an image is cut into 5 x 5 cells to find candidates
_ROWS, _COLUMNS = 512, 2048  # rows compared with others at once
_ROUNDING = 1e-5  # of a squared distance over a few cells in float32, as a fraction of the squared lengths


def copies(images: Rows, near: float = NEAR) -> Tensor:
    """For each of N images (N, C, H, W) the position of the first image of its group of copies, (N,), int64.

    Copies of copies are in one group. Copies that were shifted, turned or recoloured are not found.

    Arguments:
        images: (N, C, H, W), in memory or on disk.
        near: how far apart near copies may be: the root mean square of their difference, as a fraction of the contrast
            (the standard deviation of the values) of the flatter one. The default takes in a file that was saved again
            as JPEG; distinct digits, faces and photographs lie beyond it. 0 finds equal images only.
    """
    flat = images.flatten(1) if isinstance(images, Stored) else images.detach().cpu().flatten(1).contiguous()
    first: dict[bytes, int] = {}
    rows = (row for part in parts(flat) for row in part.numpy())
    group = numpy.array([first.setdefault(sha256(row.data).digest(), number) for number, row in enumerate(rows)], int)
    if near and images[:1].numel() > 1:
        distinct = numpy.unique(group)
        joined = numpy.arange(len(group))
        joined[distinct] = distinct[_near(choose(flat, torch.from_numpy(distinct)), images.shape[1:], near)]
        group = joined[group]
    return torch.from_numpy(group)


def _near(flat: Rows, shape: torch.Size, near: float) -> numpy.ndarray:
    """The groups of near copies among distinct images (M, D), each named by its first row, (M,).

    The means over the cells of a grid, rightly scaled, are an orthogonal projection. It never lies farther apart than
    the images do, so a pair that is far apart there is passed over. Rows are sorted along the direction in which the
    means vary most, and compared with those that are not too far along it.
    """
    spread = (torch.from_numpy(part.numpy().std(1, dtype=numpy.float64)) for part in parts(flat))
    reach = near * filled(len(flat), spread).numpy()  # in root mean squares
    points = _sorted_axes(_cells(flat, shape))
    order = points[:, 0].argsort()
    points, first = points[order], points[order, 0].numpy()
    squares = points.square().sum(1)
    balls = torch.from_numpy(reach * (1 + 1e-6) + 1e-7).float()[order]  # rounding must not lose a pair
    slack, groups = _ROUNDING * (squares + 1e-9), _Groups(len(flat))
    for start in range(0, len(flat), _ROWS):
        own = slice(start, start + _ROWS)
        stop = int(first.searchsorted(first[own][-1] + float(balls[own].max()), "right"))
        for column in range(start, stop, _COLUMNS):
            other = slice(column, min(column + _COLUMNS, stop))
            apart = torch.addmm(squares[other] - slack[other], points[own], points[other].T, alpha=-2)
            apart += (squares[own] - slack[own])[:, None]
            i, j = (apart <= torch.minimum(balls[own, None], balls[other]).square()).nonzero(as_tuple=True)
            later = i + start < j + column
            pairs = order[i[later] + start].numpy(), order[j[later] + column].numpy()
            _join(groups, flat, reach, *pairs)
    return groups.names()


class _Groups:
    """Which of M rows are in one group: at first each is in one of its own."""

    def __init__(self, count: int) -> None:
        self.of = numpy.arange(count)  # (M,), the group of each row
        self._rows = {row: [row] for row in range(count)}

    def join(self, one: int, other: int) -> None:
        """Two groups become one; the smaller is renamed."""
        if len(self._rows[one]) < len(self._rows[other]):
            one, other = other, one
        moved = self._rows.pop(other)
        self._rows[one] += moved
        self.of[moved] = one

    def names(self) -> numpy.ndarray:
        """The first row of the group of each row, (M,)."""
        named = self.of.copy()
        for rows in self._rows.values():
            named[rows] = min(rows)
        return named


def _join(groups: _Groups, flat: Rows, reach: numpy.ndarray, i: numpy.ndarray, j: numpy.ndarray) -> None:
    """Join the pairs of rows (P,), (P,), ordered by i, that really are near copies."""
    for row, start, count in zip(*numpy.unique(i, return_index=True, return_counts=True), strict=True):
        found = j[start : start + count]
        found = found[groups.of[found] != groups.of[row]]
        for some in numpy.array_split(found, -(-len(found) // few(flat, len(found) or 1)) or 1):
            others, own = flat[torch.from_numpy(some)].numpy(), flat[row].numpy()
            apart = numpy.sqrt(numpy.square(others - own).mean(1, dtype=numpy.float64))
            for other in some[apart <= numpy.minimum(reach[row], reach[some])]:
                if groups.of[other] != groups.of[row]:
                    groups.join(int(groups.of[row]), int(groups.of[other]))


def _sorted_axes(points: numpy.ndarray) -> Tensor:
    """Points (M, C) about their mean, turned so that they vary most along the first axis, (M, C), float32."""
    centred = torch.from_numpy(points).double()
    centred -= centred.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    return (centred @ axes.flip(1)).float()


def _cells(flat: Rows, shape: torch.Size) -> numpy.ndarray:
    """Images (M, D) projected on their means over a grid of cells, (M, cells), at root mean square distances."""
    _, high, wide = shape
    rows, columns = (numpy.arange(side) * min(side, _CELLS) // side for side in (high, wide))
    cell = numpy.broadcast_to(rows[:, None] * _CELLS + columns, tuple(shape)).ravel()
    names, cell, sizes = numpy.unique(cell, return_inverse=True, return_counts=True)
    onto = numpy.zeros((len(cell), len(names)), numpy.float32)
    onto[numpy.arange(len(cell)), cell.ravel()] = 1
    scale = numpy.sqrt(sizes * float(flat.shape[1]))
    return filled(len(flat), (torch.from_numpy((part.numpy() @ onto) / scale) for part in parts(flat))).numpy()
