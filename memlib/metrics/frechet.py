"""The Frechet distance between two sets of features, and the streamed mean and covariance that it needs.

    d^2 = |mean_a - mean_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^1/2

For any factors C = F F^T, the last trace is the nuclear norm |F_a^T F_b|_*, the sum of the singular values. It is the
sum of the roots of the eigenvalues of F_a^T C_b F_a, so one factor and no square root of a matrix are needed. If there
are fewer rows than features (N < D), the centred rows themselves are F^T, and no D x D matrix is formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics._product import gram
from memlib.metrics.neighbours import checked
from memlib.shapes import Float, Shaped
from memlib.stored import Rows, at_once, choose, each, filled, mapped, mean_row, parts

_ROWS = 1024  # rows held at once in float64
_STRIPS = 4  # of a symmetric product: what lies above the diagonal strips need not be computed
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
    def update(self, rows: Shaped[Rows, "..."]) -> "Moments":
        """Add rows (B, D), in memory or on disk, and return this object.

        Raises Refused for another width and for rows that are not finite.
        """
        rows = checked(rows, "new", least=1, width=len(self.mean))
        count = min(len(rows), at_once(_ROWS, rows))
        held = self.mean.new_empty(count, len(self.mean))  # one for all parts: fresh memory is slow
        for part in rows.split(count):
            centred = held[: len(part)].copy_(part)
            mean = centred.mean(0)
            self._join(len(part), mean, gram(centred.sub_(mean)))
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
def frechet_distance(a: Shaped[Rows, "..."] | Moments, b: Shaped[Rows, "..."] | Moments) -> float:
    """Squared Frechet distance of two Gaussians fitted to features. With Inception features this is FID.

    Heusel et al. 2017, eq. 6, squared as usually reported, in float64, with covariances over N - 1. Equal sets give 0
    up to rounding. Few rows bias the distance upwards, roughly as 1/N: compare distances at equal N and M.

    Arguments:
        a: features (N, D), in memory or on disk, or their `Moments` if they come batch by batch.
        b: features (M, D), or their `Moments`. Sums over sets on disk are rounded in another order: results differ from
            those in memory by about 1e-12 of the traces. Memory: D^2 numbers for any N and M.

    Raises:
        Refused: for fewer than two rows, for shapes that do not match, and for values that are not finite.
    """
    mean_a, spread_a = _mean_and_spread(a, "first")
    mean_b, spread_b = _mean_and_spread(b, "second")
    if len(mean_a) != len(mean_b):
        raise Refused(f"both sets must have the same features, not {len(mean_a)} and {len(mean_b)} of them")
    total = spread_a.trace() + spread_b.trace()
    distance = (mean_a - mean_b).square().sum() + total - 2 * _trace_of_root(spread_a, spread_b, total)
    return max(float(distance), 0.0)  # only rounding can make it negative


class _Spread(NamedTuple):
    """How features spread: their covariance C (D, D), or rows R (r, D) with R^T R = C, r < D."""

    covariance: Float[Tensor, "d d"] | None = None
    rows: Float[Rows, "r d"] | None = None

    def trace(self) -> Float[Tensor, ""]:
        """Of C."""
        if self.covariance is not None:
            return self.covariance.trace()
        assert self.rows is not None  # one of both is given
        return torch.stack([part.square().sum() for part in parts(self.rows)]).sum()

    def lower(self) -> Float[Tensor, "d d"] | None:
        """The lower triangular factor of C, if C is given and positive definite."""
        if self.covariance is None:
            return None
        lower, failed = torch.linalg.cholesky_ex(self.covariance)
        return None if failed else lower

    def any_rows(self) -> Float[Rows, "r d"]:
        """Rows for C, as many as its rank if C is singular: a dead feature, or streamed N < D."""
        if self.rows is not None:
            return self.rows
        if (lower := self.lower()) is not None:
            return lower.T
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        return (vectors[:, kept] * values[kept].sqrt()).T


def _mean_and_spread(side: Rows | Moments, name: str) -> tuple[Float[Tensor, " d"], _Spread]:
    """The mean (D,), and the centred rows if N < D, else the covariance."""
    if not isinstance(side, Moments):
        count, width = checked(side, name).shape
        if count < width:
            mean = mean_row(side, torch.float64)
            return mean, _Spread(rows=mapped(side, lambda part: (part - mean) / (count - 1) ** 0.5))
        side = Moments(width, side.device).update(side)
    return side.mean, _Spread(side.covariance)


def _trace_of_root(a: _Spread, b: _Spread, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """tr (C_a C_b)^1/2, from the eigenvalues of F_a^T C_b F_a."""
    if b.rows is not None:
        a, b = b, a  # the rows come first; of two, the smaller product
        if a.rows is not None and b.rows is not None and len(a.rows) > len(b.rows):
            a, b = b, a
    if b.covariance is None:
        assert a.rows is not None and b.rows is not None  # a single one that has rows stands in front
        square = gram(_products(b.rows, a.rows))
    elif a.rows is not None:
        square = _congruent(b.covariance, a.rows)
    elif (lower := a.lower()) is not None:
        square = _congruent_triangular(b.covariance, lower)
    elif a.covariance is not None and (lower := b.lower()) is not None:
        square = _congruent_triangular(a.covariance, lower)
    else:
        square = _congruent(b.covariance, a.any_rows())
    return _sum_of_roots(square, lambda: _products(a.any_rows(), b.any_rows()), scale)


def _products(a: Float[Rows, "r d"], b: Float[Rows, "s d"]) -> Float[Tensor, "r s"]:
    """All products of rows, (r, s)."""
    if isinstance(b, Tensor):
        return each(lambda part: part @ b.T, a)
    return filled(len(b), (_products(a, part).T for part in parts(b))).T


def _congruent(c: Float[Tensor, "d d"], rows: Float[Rows, "r d"]) -> Float[Tensor, "r r"]:
    """The lower strips of R C R^T, (r, r), where C is symmetric; what lies above them is not computed."""
    square = c.new_zeros(len(rows), len(rows))
    step = max(1, -(-len(square) // _STRIPS))
    for start in range(0, len(square), step):
        strip = slice(start, start + step)
        square[start:, strip] = _products(choose(rows, slice(start, None)), (c @ rows[strip].T).T)
    return square


def _congruent_triangular(c: Float[Tensor, "d d"], lower: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The same of L^T C L, for a lower triangular L, whose zeros are not multiplied."""
    square = torch.zeros_like(c)
    step = max(1, -(-len(square) // _STRIPS))
    for start in range(0, len(square), step):
        strip = slice(start, start + step)
        square[start:, strip] = lower[start:, start:].T @ (c[start:, start:] @ lower[start:, strip])
    return square


def _sum_of_roots(
    square: Float[Tensor, "r r"], cross: Callable[[], Float[Tensor, "r s"]], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """The sum of the roots of the eigenvalues of a square (r, r), whose lower triangle is given.

    Where they are not exact enough it is that of the singular values of `cross`, of which the square is a product.
    """
    if not square.numel():  # one set does not vary at all
        return square.new_zeros(())
    values = torch.linalg.eigvalsh(square).clamp(min=0)
    # An eigenvalue is off by rounding of the largest, and the root of a small one by the root of that.
    off = 4 * torch.finfo(values.dtype).eps * values.amax()
    if ((values + off).sqrt() - values.sqrt()).sum() <= _EXACT * scale:
        return values.sqrt().sum()
    return torch.linalg.svdvals(cross()).sum()
