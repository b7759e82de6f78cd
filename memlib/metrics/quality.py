"""Quality and variety of samples: precision, recall, density and coverage from neighbours, and the Inception score."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics.counts import Count
from memlib.metrics.neighbours import _smallest, checked
from memlib.shapes import Bool, Float, Int

_ROWS = 512  # points held at once
_COLUMNS = 2048  # centres held at once
_SPARE = 8  # neighbours beyond the k-th whose distance is also computed exactly: rounding may have swapped them
_CELLS = 1 << 22  # numbers held at once while distances are computed exactly
_TOUCH = 1e-12  # a point lies on a surface if its squared distance differs by this fraction at most


class PrecisionRecall(NamedTuple):
    """The samples that lie in the manifold of the real images, and the real images that lie in that of the samples."""

    precision: Count
    recall: Count


class DensityCoverage(NamedTuple):
    """The mean number of real balls around a sample, over k (may exceed 1), and the real balls that hold a sample.

    Both are of distinct rows.
    """

    density: float
    coverage: Count


@takes_arrays("real", "fake")
@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall. Kynkaanniemi et al. 2019, eq. 1-2.

    The manifold of a set is the union of balls around its distinct rows. The radius of a ball is the distance to the
    k-th nearest other distinct row, and the surface belongs to the ball. Duplicates would otherwise make balls of
    radius 0, in which nothing but a copy lies. Balls shrink as sets grow, so compare at equal N and M. The intervals of
    the counts treat the manifold as fixed. All is computed in float64 and streamed. Distances near a surface are
    computed from differences, so copies are counted correctly.

    Arguments:
        real: features (N, D) of real images.
        fake: features (M, D) of samples.
        k: the neighbour that sets the radius.

    Raises:
        Refused: unless 1 <= k < N, M, for fewer than k + 1 distinct rows in either set, for shapes that do not match,
            and for values that are not finite.
    """
    real, fake = _centred(real, fake)
    real_balls, fake_balls = _distinct(real, "real", k), _distinct(fake, "fake", k)
    around_fake, _ = _inside(fake, real_balls, _radii(real_balls, k))
    around_real, _ = _inside(real, fake_balls, _radii(fake_balls, k))
    return PrecisionRecall(*(Count(int((balls > 0).sum()), len(balls)) for balls in (around_fake, around_real)))


@takes_arrays("real", "fake")
@torch.no_grad()
def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage. Naeem et al. 2020, eq. 3-4; k = 5 is theirs.

    Both use only the balls of the real rows, as `precision_recall` defines them. An outlier among the samples therefore
    does not create a large ball. Duplicates are counted once on either side: a set compared with itself has density
    (k + 1) / k, since each ball holds its centre and, on its surface, the k-th neighbour; it has more only where
    several rows lie on one surface.

    Arguments:
        real: features (N, D) of real images.
        fake: features (M, D) of samples.
        k: the neighbour that sets the radius.

    Raises:
        Refused: as `precision_recall` does; the samples may be few.
    """
    real, fake = _centred(real, fake)
    real, fake = _distinct(real, "real", k), fake.unique(dim=0)
    around, held = _inside(fake, real, _radii(real, k))
    return DensityCoverage(float(around.double().mean()) / k, Count(int(held.sum()), len(real)))


@takes_arrays("probabilities")
@torch.no_grad()
def inception_score(probabilities: Tensor, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """The Inception score exp(mean KL(p(y|x), p(y))), its mean and standard deviation over parts. Salimans et al. 2016.

    The score lies between 1 and K. p(y) is the mean over one part, so rows are sorted and then shuffled by `seed`: the
    score does not depend on their order. The standard deviation (over splits - 1; NaN for a single part) is that
    between parts, not between runs.

    Arguments:
        probabilities: (N, K), the probability of each class for each sample.
        splits: the number of parts, 1 to N.
        seed: of the shuffling.

    Returns:
        The mean, and the standard deviation.

    Raises:
        Refused: for rows that are not probabilities, and for splits outside 1..N.
    """
    p = checked(probabilities, "probability", least=1).double()
    if (p < 0).any() or ((p.sum(1) - 1).abs() > 1e-3).any():
        raise Refused("each row of probabilities must be non-negative and sum to 1: apply softmax to logits first")
    if not 1 <= splits <= len(p):
        raise Refused(f"{len(p)} rows do not make {splits} parts: give splits from 1 to {len(p)}")
    if splits > 1:
        rows, times = p.unique(dim=0, return_counts=True)  # ascending
        order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed))
        p = rows.repeat_interleave(times, 0)[order.to(p.device)]
    divergences = [
        (torch.xlogy(part, part) - torch.xlogy(part, part.mean(0))).sum(1).mean() for part in p.tensor_split(splits)
    ]
    scores = torch.stack(divergences).exp()
    return float(scores.mean()), float(scores.std()) if splits > 1 else math.nan


def _centred(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 and shifted to one centre, where the product form of a distance cancels less; or Refused."""
    real, fake = checked(real, "real").double(), checked(fake, "fake", width=real.shape[-1]).double()
    centre = real.mean(0)
    return real - centre, fake - centre


def _distinct(rows: Float[Tensor, "n d"], name: str, k: int) -> Float[Tensor, "u d"]:
    """The distinct rows, (U, D); or Refused, where a row among them has no k-th other one."""
    if not 1 <= k < len(rows):
        raise Refused(f"a row has no {k}-th neighbour among {len(rows)} rows: give k from 1 to {len(rows) - 1}")
    distinct = rows.unique(dim=0)
    if len(distinct) <= k:
        raise Refused(
            f"{len(rows)} {name} rows are copies of {len(distinct)}, where k = {k} needs {k + 1} distinct ones: "
            "lower k, or give a set that varies"
        )
    return distinct


def _radii(rows: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Squared distance of each row (N, D) to its k-th nearest other row, (N,)."""
    kept, radii = min(k + 1 + _SPARE, len(rows)), []
    for own in torch.arange(len(rows), device=rows.device).split(_ROWS):
        _, index = _smallest(rows[own], rows, kept)
        squares = _exact(rows, rows, own.repeat_interleave(kept), index.flatten()).view(-1, kept)
        radii.append(squares.masked_fill(index == own[:, None], math.inf).kthvalue(k).values)
    return torch.cat(radii)


def _inside(
    points: Float[Tensor, "m d"], centres: Float[Tensor, "n d"], radii: Float[Tensor, " n"]
) -> tuple[Int[Tensor, " m"], Bool[Tensor, " n"]]:
    """The number of balls that each point lies in, (M,), and whether each ball holds a point, (N,)."""
    around = torch.zeros(len(points), dtype=torch.long, device=points.device)
    held = torch.zeros(len(centres), dtype=torch.bool, device=points.device)
    reach = points.norm(dim=1).max() + centres.norm(dim=1).max()
    slack = 4 * points.shape[1] * torch.finfo(points.dtype).eps * reach**2  # rounding of the product form
    for start in range(0, len(points), _ROWS):
        tile = points[start : start + _ROWS]
        lengths = tile.square().sum(1, keepdim=True)
        for column in range(0, len(centres), _COLUMNS):
            part, limit = centres[column : column + _COLUMNS], radii[column : column + _COLUMNS]
            excess = torch.addmm(part.square().sum(1) - limit, tile, part.T, alpha=-2) + lengths
            inside = excess < -slack
            i, j = (excess.abs() <= slack).nonzero(as_tuple=True)
            inside[i, j] = _exact(tile, part, i, j) <= limit[j] * (1 + _TOUCH)
            around[start : start + _ROWS] += inside.sum(1)
            held[column : column + _COLUMNS] |= inside.any(0)
    return around, held


def _exact(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], i: Int[Tensor, " p"], j: Int[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Squared distances |x_i - y_j|^2 of rows of (n, D) and (m, D) from their differences, (P,)."""
    pairs = zip(*(index.split(max(1, _CELLS // x.shape[1])) for index in (i, j)), strict=True)
    return torch.cat([(x[p] - y[q]).square().sum(1) for p, q in pairs])
