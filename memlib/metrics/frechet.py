"""The Frechet distance between two sets of features, and the streamed mean and covariance that it needs.

    d^2 = |mean_a - mean_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^1/2

For any factors C = F F^T, the last trace is the nuclear norm |F_a^T F_b|_*, the sum of the singular values. No square
root of a matrix is therefore needed. If there are fewer rows than features (N < D), the centred rows themselves are the
factor, and no D x D matrix is formed.
"""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics.neighbours import checked
from memlib.shapes import Float, Shaped

_ROWS = 2048  # rows held at once in float64
_STRIPS = 4  # a covariance is symmetric: in four strips 3/8 of the product need not be computed
_EXACT = 1e-10  # error, relative to tr C_a + tr C_b, up to which the faster eigenvalues are good enough


class Moments:
    """Count, mean and covariance of features (N, D) that arrive in batches, in float64 on `device`.

    Each batch is centred on its own mean and merged by the update of Chan, Golub and LeVeque 1983. A mean far from 0
    therefore costs no precision. Memory: D^2 numbers for any N.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)  # (D,)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=device)  # (D, D), covariance * (n - 1)

    @takes_arrays("rows")
    @torch.no_grad()
    def update(self, rows: Shaped[Tensor, "..."]) -> "Moments":
        """Add rows (B, D) and return this object. Raises Refused for another width and for rows that are not finite."""
        for part in checked(rows, "new", least=1, width=len(self.mean)).split(_ROWS):
            mean = part.mean(0, dtype=torch.float64).to(self.mean)
            self._join(len(part), mean, _gram(part.to(mean.device) - mean))  # float64, as the mean is
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add all rows that `other` has seen and return this object. Raises Refused for another width."""
        if len(other.mean) != len(self.mean):
            raise Refused(f"moments of {len(self.mean)} features cannot take in moments of {len(other.mean)}")
        if other.n:
            self._join(other.n, other.mean.to(self.mean), other.scatter.to(self.scatter))
        return self

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased covariance, (D, D). Raises Refused for fewer than two rows."""
        if self.n < 2:
            raise Refused(f"a covariance needs at least 2 rows and has seen {self.n}: update with more")
        return self.scatter / (self.n - 1)

    def _join(self, count: int, mean: Float[Tensor, " d"], scatter: Float[Tensor, "d d"]) -> None:
        total, apart = self.n + count, mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(apart, apart, alpha=self.n * count / total)
        self.mean += apart * (count / total)
        self.n = total


@takes_arrays("a", "b")
@torch.no_grad()
def frechet_distance(a: Shaped[Tensor, "..."] | Moments, b: Shaped[Tensor, "..."] | Moments) -> float:
    """Squared Frechet distance of two Gaussians fitted to features. With Inception features this is FID.

    Heusel et al. 2017, eq. 6, squared as usually reported, in float64, with covariances over N - 1. Equal sets give 0
    up to rounding. Few rows bias the distance upwards, roughly as 1/N: compare distances at equal N and M.

    Arguments:
        a: features (N, D), or their `Moments` if they do not fit into memory at once.
        b: features (M, D), or their `Moments`.

    Raises:
        Refused: for fewer than two rows, for shapes that do not match, and for values that are not finite.
    """
    mean_a, factor_a = _mean_and_factor(a, "first")
    mean_b, factor_b = _mean_and_factor(b, "second")
    if len(mean_a) != len(mean_b):
        raise Refused(f"both sets must have the same features, not {len(mean_a)} and {len(mean_b)} of them")
    total = factor_a.square().sum() + factor_b.square().sum()
    distance = (mean_a - mean_b).square().sum() + total - 2 * _nuclear_norm(factor_a.T @ factor_b, total)
    return max(float(distance), 0.0)  # only rounding can make it negative


def _mean_and_factor(side: Tensor | Moments, name: str) -> tuple[Float[Tensor, " d"], Float[Tensor, "d r"]]:
    """The mean (D,) and a factor F with F F^T = covariance: (D, N) if N < D, else (D, rank)."""
    if not isinstance(side, Moments):
        count, width = checked(side, name).shape
        if count < width:
            mean = side.mean(0, dtype=torch.float64)
            return mean, (side - mean).T / (count - 1) ** 0.5
        side = Moments(width, side.device).update(side)
    covariance = side.covariance
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return side.mean, lower
    values, vectors = torch.linalg.eigh(covariance)  # singular: a dead feature, or streamed N < D
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    return side.mean, vectors[:, kept] * values[kept].sqrt()


def _nuclear_norm(cross: Float[Tensor, "r s"], scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The sum of the singular values of (r, s), from the eigenvalues of the square where those are exact enough."""
    if not cross.numel():  # one set does not vary at all
        return cross.new_zeros(())
    if cross.shape[0] > cross.shape[1]:
        cross = cross.T
    values = torch.linalg.eigvalsh(_gram(cross.T)).clamp(min=0)
    # An eigenvalue is off by rounding of the largest, and the root of a small one by the root of that.
    off = 4 * torch.finfo(values.dtype).eps * values.amax()
    if ((values + off).sqrt() - values.sqrt()).sum() <= _EXACT * scale:
        return values.sqrt().sum()
    return torch.linalg.svdvals(cross).sum()


def _gram(rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """rows^T rows, (D, D) for rows (N, D). Outside the diagonal strips, each entry is computed once and mirrored."""
    gram = rows.new_empty(rows.shape[1], rows.shape[1])
    step = -(-rows.shape[1] // _STRIPS)
    for start in range(0, rows.shape[1], step):
        strip = slice(start, start + step)
        gram[strip, start:] = rows[:, strip].T @ rows[:, start:]
        gram[start:, strip] = gram[strip, start:].T.clone()
    return gram
