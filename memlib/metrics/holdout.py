"""Metrics that compare a sample's distance to the training set with that of real images."""

import math

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics._cliques import _neighbours
from memlib.metrics.counts import Count
from memlib.shapes import Shaped
from memlib.stored import Rows, Stored, at_once, filled, parts

_ROWS = 512  # rows whose distances are held at once
_CELLS = 1 << 22  # numbers held at once while distances are computed from differences


@takes_arrays("queries", "train")
@torch.no_grad()
def authentic(queries: Shaped[Rows, "..."], train: Shaped[Rows, "..."], distinct: float = 0.0) -> Count:
    """The samples that are no nearer to a training row than that row is to its nearest distinct one. Alaa et al. 2022.

    AuthPct of the paper takes the nearest other row, which is at distance 0 where every training image occurs twice:
    then every sample is authentic, copies too. Rows up to `distinct` apart count as one image here.

    Arguments:
        queries: (N, D), features of samples.
        train: (M, D), features of training images, in memory or on disk.
        distinct: the distance from which two training rows are distinct.

    Raises:
        Refused: for empty sets, other shapes, and training rows that are all one image.
    """
    _sets(queries, train)
    queries, train = queries.double(), train.double()
    own, place, _ = _neighbours(queries, train, 1)
    rows, back = place.unique(return_inverse=True)
    gap = filled(len(rows), (_gaps(train[some], train, distinct) for some in rows.split(at_once(_ROWS, train))))[back]
    if gap.isinf().any():
        raise Refused(f"no two training rows are more than {distinct} apart: they are one image, so give several")
    return Count(int((own >= gap).sum()), len(queries))


@takes_arrays("generated", "held_out")
def copying_score(generated: Shaped[Tensor, " n"], held_out: Shaped[Tensor, " m"]) -> float:
    """C_T: the z-value of "samples are farther from the training set than held-out images are". Meehan et al. 2020.

    Far below 0 the samples lie too near, that is, they copy; far above 0 the model underfits. This is their statistic
    with one cell. Under the null it is standard normal; ties count half.

    Arguments:
        generated: (N,), the distance of each sample to its nearest training image.
        held_out: (M,), the same of held-out images.
    """
    n, m = len(generated), len(held_out)
    ascending = held_out.double().sort().values
    below = torch.searchsorted(ascending, generated.double()) + torch.searchsorted(
        ascending, generated.double(), right=True
    )
    u = float(below.double().sum() / 2)
    return (u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5


@takes_arrays("to_train", "to_held_out")
def nearer_to_train(
    to_train: Shaped[Tensor, " n"], to_held_out: Shaped[Tensor, " n"], train: int, held_out: int
) -> tuple[Count, float]:
    """The DCR share: samples whose nearest image is a training image, and the share that chance alone gives.

    The baseline is train / (train + held_out), and 1/2 only for sets of equal size. A tie is no hit.

    Arguments:
        to_train: (N,), the distance of each sample to its nearest training image.
        to_held_out: (N,), that to its nearest held-out image.
        train, held_out: the numbers of distinct images in the two sets.
    """
    return Count(int((to_train < to_held_out).sum()), len(to_train)), train / (train + held_out)


def _gaps(rows: Tensor, train: Rows, edge: float) -> Tensor:
    """The distance of each row (n, D) to the nearest of (M, D) that is more than `edge` away, (n,).

    Products tell rows apart that are equal, since they round. So distances that may be within the edge are computed
    again from the differences.
    """
    least, width = rows.new_full((len(rows),), torch.inf), rows.shape[1]
    longest, step = rows.square().sum(1).max(), max(1, _CELLS // width)
    for columns in parts(train) if isinstance(train, Stored) else (train,):
        apart = torch.cdist(rows, columns)
        reach = float(longest + columns.square().sum(1).max())
        off = 2 * (width + 2) * torch.finfo(rows.dtype).eps * reach  # of a square
        i, j = (apart <= math.sqrt(edge**2 + off)).nonzero(as_tuple=True)
        for some, others in zip(i.split(step), j.split(step), strict=True):
            apart[some, others] = (rows[some] - columns[others]).norm(dim=1)
        least = torch.minimum(least, apart.masked_fill(apart <= edge, torch.inf).amin(1))
    return least


def _sets(queries: Rows, train: Rows) -> None:
    if queries.dim() != 2 or train.dim() != 2 or not len(queries) or len(train) < 2:
        raise Refused(f"give samples (N, D) and two training rows (M, D) or more, not {tuple(train.shape)}")
