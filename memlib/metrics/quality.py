"""Quality and variety of samples: precision, recall, density and coverage from neighbours, and the Inception score."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.counts import Count
from memlib.metrics.neighbours import _smallest, checked

_ROWS = 512  # points held at once
_COLUMNS = 2048  # centres held at once
_SPARE = 8  # neighbours beyond the k-th that are measured again, since rounding may have swapped them
_CELLS = 1 << 22  # numbers held at once while distances are measured again
_TOUCH = 1e-12  # relative distance from a surface, in squares, that still lies on it


class PrecisionRecall(NamedTuple):
    """Samples inside the manifold of the real images, and real images inside that of the samples."""

    precision: Count
    recall: Count


class DensityCoverage(NamedTuple):
    """Mean number of real balls about a sample over k, which may exceed 1, and the real balls that hold a sample."""

    density: float
    coverage: Count


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of features real (N, D) and fake (M, D). Kynkaanniemi et al. 2019, eq. 1-2.

    A manifold is the union of balls about the rows of a set, each as wide as the distance to the k-th nearest other
    row, surface included. Balls shrink as sets grow, so compare at equal N and M; the intervals of the counts hold
    the manifold fixed. In float64 and streamed. Distances near a surface are taken from differences, so copies and
    duplicates count as they should. Raises Refused unless 1 <= k < N, M, for shapes that do not fit and for values
    that are not finite.
    """
    real, fake = _centred(real, fake)
    around_fake, _ = _inside(fake, real, _radii(real, k))
    around_real, _ = _inside(real, fake, _radii(fake, k))
    return PrecisionRecall(*(Count(int((balls > 0).sum()), len(balls)) for balls in (around_fake, around_real)))


@torch.no_grad()
def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of features real (N, D) and fake (M, D). Naeem et al. 2020, eq. 3-4; k = 5 is theirs.

    They use the balls of the real rows alone, as `precision_recall` defines them, so an outlier among the samples
    opens no wide ball. Raises Refused as that does.
    """
    real, fake = _centred(real, fake)
    around, held = _inside(fake, real, _radii(real, k))
    return DensityCoverage(float(around.double().mean()) / k, Count(int(held.sum()), len(real)))


@torch.no_grad()
def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp(mean KL(p(y|x), p(y))) of `splits` consecutive parts: mean and standard deviation. Salimans et al. 2016.

    probabilities (N, K): of each class for each sample, between 1 and K the score. p(y) is the mean of a part, so
    shuffle rows that come in the order of their classes. The deviation is over splits - 1, NaN for a single part, and
    that of parts, not of runs. Raises Refused for rows that are no probabilities and for splits outside 1..N.
    """
    p = checked(probabilities, "probability", least=1).double()
    if (p < 0).any() or ((p.sum(1) - 1).abs() > 1e-3).any():
        raise Refused("each row of probabilities must be non-negative and sum to 1: apply softmax to logits first")
    if not 1 <= splits <= len(p):
        raise Refused(f"{len(p)} rows do not make {splits} parts: give splits from 1 to {len(p)}")
    divergences = [
        (torch.xlogy(part, part) - torch.xlogy(part, part.mean(0))).sum(1).mean() for part in p.tensor_split(splits)
    ]
    scores = torch.stack(divergences).exp()
    return float(scores.mean()), float(scores.std()) if splits > 1 else math.nan


def _centred(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 about one centre, where the product form of a distance cancels less; or Refused."""
    real, fake = checked(real, "real").double(), checked(fake, "fake", width=real.shape[-1]).double()
    centre = real.mean(0)
    return real - centre, fake - centre


def _radii(rows: Tensor, k: int) -> Tensor:
    """Squared distance of each row (N, D) to its k-th nearest other row, (N,)."""
    if not 1 <= k < len(rows):
        raise Refused(f"the neighbour number {k} of {len(rows)} rows was asked for: give k from 1 to {len(rows) - 1}")
    kept, radii = min(k + 1 + _SPARE, len(rows)), []
    for own in torch.arange(len(rows), device=rows.device).split(_ROWS):
        _, index = _smallest(rows[own], rows, kept)
        squares = _exact(rows, rows, own.repeat_interleave(kept), index.flatten()).view(-1, kept)
        radii.append(squares.masked_fill(index == own[:, None], math.inf).kthvalue(k).values)
    return torch.cat(radii)


def _inside(points: Tensor, centres: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """How many balls each point lies in, (M,), and whether each ball holds a point, (N,)."""
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


def _exact(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances |x_i - y_j|^2 of rows of (n, D) and (m, D) from their differences, (P,)."""
    pairs = zip(*(index.split(max(1, _CELLS // x.shape[1])) for index in (i, j)), strict=True)
    return torch.cat([(x[p] - y[q]).square().sum(1) for p, q in pairs])
