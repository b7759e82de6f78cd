"""Which images of a set are copies of one another: equal in every pixel, or nearly so at a stated distance."""

from hashlib import sha256

import numpy
import torch
from scipy.spatial import KDTree
from torch import Tensor

NEAR = 0.1  # see `copies`

_CELLS = 5  # an image is cut into 5 x 5 cells to find candidates
_QUERIES = 100  # rows whose candidates are sought at once
_PIXELS = 1 << 22  # compared at once


def copies(images: Tensor, near: float = NEAR) -> Tensor:
    """For each of N images (N, C, H, W) the position of the first image of its group of copies, (N,), int64.

    Copies of copies are in one group. Copies that were shifted, turned or recoloured are not found.

    Arguments:
        images: (N, C, H, W).
        near: how far apart near copies may be: the root mean square of their difference, as a fraction of the contrast
            (the standard deviation of the values) of the flatter one. The default takes in a file that was saved again
            as JPEG; distinct digits, faces and photographs lie beyond it. 0 finds equal images only.
    """
    flat = images.detach().cpu().flatten(1).contiguous().numpy()
    first: dict[bytes, int] = {}
    group = [first.setdefault(sha256(row.data).digest(), number) for number, row in enumerate(flat)]
    group = numpy.array(group, numpy.int64)
    if near and images[:1].numel() > 1:
        distinct = numpy.unique(group)
        joined = numpy.arange(len(group))
        joined[distinct] = distinct[_near(flat[distinct], images.shape[1:], near)]
        group = joined[group]
    return torch.from_numpy(group)


def _near(flat: numpy.ndarray, shape: torch.Size, near: float) -> numpy.ndarray:
    """The groups of near copies among distinct images (M, D), each named by its first row, (M,).

    The means over the cells of a grid, rightly scaled, are an orthogonal projection. It never lies farther apart than
    the images do, so a tree over these few coordinates misses no pair.
    """
    reach = near * flat.std(1, dtype=numpy.float64)  # in root mean squares
    coordinates = _cells(flat, shape)
    tree, root = KDTree(coordinates), numpy.arange(len(flat))
    balls = reach * (1 + 1e-6) + 1e-7  # rounding must not lose a pair
    for row in range(len(flat)):
        if row % _QUERIES == 0:
            few = slice(row, row + _QUERIES)
            inside = tree.query_ball_point(coordinates[few], balls[few])
        if len(inside[row % _QUERIES]) == 1:  # the image itself
            continue
        found = numpy.array(inside[row % _QUERIES], numpy.int64)
        found = found[root[found] != root[row]]
        for some in numpy.array_split(found, len(found) * flat.shape[1] // _PIXELS + 1):
            apart = numpy.sqrt(numpy.square(flat[some] - flat[row]).mean(1, dtype=numpy.float64))
            if len(close := some[apart <= numpy.minimum(reach[row], reach[some])]):
                together = numpy.unique(root[[*close, row]])
                root[numpy.isin(root, together)] = together[0]
    return root


def _cells(flat: numpy.ndarray, shape: torch.Size) -> numpy.ndarray:
    """Images (M, D) projected on their means over a grid of cells, (M, cells), at root mean square distances."""
    _, high, wide = shape
    rows, columns = (numpy.arange(side) * min(side, _CELLS) // side for side in (high, wide))
    cell = numpy.broadcast_to(rows[:, None] * _CELLS + columns, tuple(shape)).ravel()
    names, cell, sizes = numpy.unique(cell, return_inverse=True, return_counts=True)
    onto = numpy.zeros((len(cell), len(names)), numpy.float32)
    onto[numpy.arange(len(cell)), cell.ravel()] = 1
    return (flat @ onto) / numpy.sqrt(sizes * float(flat.shape[1]))
