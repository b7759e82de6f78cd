"""Quality and variety of samples: precision, recall, density and coverage from neighbours, and the Inception score."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics._balls import both, distinct, held, prepared, radii, unique
from memlib.metrics.counts import Count
from memlib.metrics.neighbours import checked
from memlib.shapes import Int
from memlib.stored import Rows


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
def precision_recall(real: Rows, fake: Rows, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall. Kynkaanniemi et al. 2019, eq. 1-2.

    The manifold of a set is the union of balls around its distinct rows. The radius of a ball is the distance to the
    k-th nearest other distinct row, and the surface belongs to the ball. Duplicates would otherwise make balls of
    radius 0, in which nothing but a copy lies. Balls shrink as sets grow, so compare at equal N and M. The intervals of
    the counts treat the manifold as fixed. All is computed in float64 and streamed. Distances near a surface are
    computed from differences, so copies are counted correctly.

    Arguments:
        real: features (N, D) of real images, in memory or on disk.
        fake: features (M, D) of samples.
        k: the neighbour that sets the radius.

    Raises:
        Refused: unless 1 <= k < N, M, for fewer than k + 1 distinct rows in either set, for shapes that do not match,
            and for values that are not finite.
    """
    (real, times_real), (fake, times_fake) = (
        distinct(rows, name, k) for rows, name in zip(_alike(real, fake), ("real", "fake"), strict=True)
    )
    one, other = prepared(real, fake)
    fake_in_real, real_in_fake = both(one, other, radii(one, k), radii(other, k))
    return PrecisionRecall(_share(fake_in_real.around, times_fake), _share(real_in_fake.around, times_real))


@takes_arrays("real", "fake")
@torch.no_grad()
def density_coverage(real: Rows, fake: Rows, k: int = 5) -> DensityCoverage:
    """Density and coverage. Naeem et al. 2020, eq. 3-4; k = 5 is theirs.

    Both use only the balls of the real rows, as `precision_recall` defines them. An outlier among the samples therefore
    does not create a large ball. Duplicates are counted once on either side: a set compared with itself has density
    (k + 1) / k, since each ball holds its centre and, on its surface, the k-th neighbour; it has more only where
    several rows lie on one surface.

    Arguments:
        real: features (N, D) of real images, in memory or on disk.
        fake: features (M, D) of samples.
        k: the neighbour that sets the radius.

    Raises:
        Refused: as `precision_recall` does; the samples may be few.
    """
    real, fake = _alike(real, fake)
    one, other = prepared(distinct(real, "real", k)[0], unique(fake)[0])
    around, inside = held(other, one, radii(one, k))
    return DensityCoverage(float(around.double().mean()) / k, Count(int((inside > 0).sum()), len(inside)))


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


def _alike(real: Rows, fake: Rows) -> tuple[Rows, Rows]:
    """Both in one floating dtype, at least float32; or Refused."""
    real, fake = checked(real, "real"), checked(fake, "fake", width=real.shape[-1])
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), torch.float32)
    return real.to(dtype), fake.to(dtype)


def _share(balls: Int[Tensor, " u"], times: Int[Tensor, " u"]) -> Count:
    """The rows that a ball holds, of all rows: each distinct row stands for as many as it has copies."""
    return Count(int(times[balls > 0].sum()), int(times.sum()))
