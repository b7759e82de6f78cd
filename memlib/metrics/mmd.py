"""The maximum mean discrepancy between two sets of features, in tiles: the full kernel matrix is never held.

    MMD^2 = |mu_a - mu_b|^2 in the space of the kernel = E k(a, a') + E k(b, b') - 2 E k(a, b)

Gretton et al. 2012, lemma 6; Real-Fake eq. 17-20. The training loss of Real-Fake uses the space of the features
themselves, |mean_a - mean_b|^2.

All take sets on disk, whose sums are rounded in another order: results differ from those in memory by about 1e-12 of a
mean kernel.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from scipy.special import ndtri
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import checked_level, takes_arrays
from memlib.metrics.neighbours import checked
from memlib.shapes import Float
from memlib.stored import Rows, at_once, filled, mapped, mean_row, parts

_ROWS = 512  # rows and columns of a tile of the kernel matrix: in float64 it fits into a cache
_DYADIC = 1e-12  # how far log2 of a ratio of squared bandwidths may be off a whole number

_Kernel = Callable[[Tensor, Tensor], Tensor]  # of rows (n, D) and (m, D), (n, m)


@takes_arrays("a", "b")
def mmd2(a: Rows, b: Rows, bandwidths: float | Sequence[float], unbiased: bool = True) -> float:
    """Squared MMD under the Gaussian kernel k(x, y) = sum_s exp(-|x - y|^2 / 2 s^2), in float64.

    As s grows, s^2 MMD^2 tends to |mean_a - mean_b|^2.

    Arguments:
        a, b: features (N, D) and (M, D).
        bandwidths: one or more s, in units of feature distance. `median_distance` is a usual centre. Bandwidths that
            differ by powers of sqrt(2) need only one exponential together.
        unbiased: leave out the pairs of a row with itself; the estimate may then be negative.

    Raises:
        Refused: for bandwidths that are not positive, for fewer than two rows, for shapes that do not match, and for
            values that are not finite.
    """
    a, b = _centred(a, b)
    return _mmd2(a, b, _gaussian(bandwidths), unbiased)


@takes_arrays("a", "b")
def kid(
    a: Rows, b: Rows, degree: int = 3, gamma: float | None = None, coef: float = 1.0, unbiased: bool = True
) -> float:
    """Squared MMD under the polynomial kernel k(x, y) = (gamma x.y + coef)^degree, in float64.

    The defaults are the kernel Inception distance (Binkowski et al. 2018, sec. 4), over all rows at once instead of an
    average over subsets. With degree=1, gamma=1, coef=0 and unbiased=False it is |mean_a - mean_b|^2.

    Arguments:
        a, b: features (N, D) and (M, D).
        degree, gamma, coef: parameters of the kernel; gamma=None is 1/D.
        unbiased: leave out the pairs of a row with itself; the estimate may then be negative.

    Raises:
        Refused: as `mmd2` does.
    """
    a, b = _pair(a, b)
    scale = 1 / a.shape[1] if gamma is None else gamma
    return _mmd2(a, b, lambda x, y: (x @ y.T).mul_(scale).add_(coef).pow_(degree), unbiased)


@takes_arrays("a", "b", "reference")
@torch.no_grad()
def mmd2_difference(
    a: Rows, b: Rows, reference: Rows, bandwidths: float | Sequence[float], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """MMD^2(a, reference) - MMD^2(b, reference), unbiased, and its interval. It is below 0 where a is nearer.

    The estimate is a difference of U-statistics. The interval is the normal one, with the variance of the linear part,
    which is the influence of each row (after Bounliphone et al. 2016). Give each set dozens of rows. The interval is
    too wide if all three distributions are the same.

    Arguments:
        a, b, reference: features (N, D), (M, D) and (R, D), drawn independently of each other.
        bandwidths: as in `mmd2`.
        level: the confidence level.

    Returns:
        The difference, and the two ends of its interval.

    Raises:
        Refused: as `mmd2` does, and for a level outside (0, 1).
    """
    checked_level(level)
    kernel = _gaussian(bandwidths)
    a, b, reference = _centred(a, b, reference)
    own_a, own_b = _own(a, kernel) / (len(a) - 1), _own(b, kernel) / (len(b) - 1)  # mean kernel with the own set
    a_r, r_a = _cross(a, reference, kernel)
    b_r, r_b = _cross(b, reference, kernel)
    value = float(own_a.mean() - 2 * a_r.mean() - own_b.mean() + 2 * b_r.mean())
    influences = 2 * (own_a - a_r), 2 * (own_b - b_r), 2 * (r_a - r_b)
    half = float(ndtri((1 + level) / 2)) * math.sqrt(sum(float(rows.var()) / len(rows) for rows in influences))
    return value, (value - half, value + half)


@takes_arrays("a", "b")
@torch.no_grad()
def mmd2_p_value(
    a: Rows,
    b: Rows,
    bandwidths: float | Sequence[float],
    permutations: int = 999,
    generator: torch.Generator | None = None,
) -> float:
    """Permutation p-value of the hypothesis that a and b come from one distribution, exact at any sample size.

    It is the fraction of random relabellings of all rows, the true one included, whose unbiased `mmd2` is at least as
    large. So it is never below 1 / (permutations + 1) (Phipson and Smyth 2010). Memory: (N + M) x permutations numbers.

    Arguments:
        a, b: features (N, D) and (M, D).
        bandwidths: as in `mmd2`.
        permutations: the number of random relabellings.
        generator: the random numbers for the relabellings; None uses torch's global generator.

    Raises:
        Refused: as `mmd2` does.
    """
    sets, n, m = _centred(a, b), len(a), len(b)
    labels = torch.zeros(n + m, permutations + 2, dtype=torch.float64)  # 1: belongs to a
    labels[:n, 0] = 1
    for column in range(1, permutations + 1):
        labels[torch.randperm(n + m, generator=generator)[:n], column] = 1
    labels[:, -1] = 1  # all rows: gives the row sums of K
    labels = labels.to(sets[0].device)
    reached = torch.zeros_like(labels)  # K labels, one column a relabelling
    for i, j, tile in _upper(sets, _gaussian(bandwidths)):
        reached[i] += tile @ labels[j]
        if i != j:
            reached[j] += tile.T @ labels[i]
    labels, reached, total = labels[:, :-1], reached[:, :-1], reached[:, -1]
    within_a = (labels * reached).sum(0)  # (permutations + 1,)
    across = total @ labels - within_a
    within_b = total.sum() - within_a - 2 * across
    values = within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)
    slack = 1e-12 * float(total.sum()) / (n * m)  # the same split may come up again, summed in another order
    return int((values >= values[0] - slack).sum()) / len(values)


@takes_arrays("a", "b")
@torch.no_grad()
def median_distance(a: Rows, b: Rows, pairs: int = 100_000, generator: torch.Generator | None = None) -> float:
    """Median distance of random pairs of rows of a (N, D) and b (M, D) taken together: the usual Gaussian bandwidth.

    Gretton et al. 2012, sec. 8. `pairs` is the number of random pairs. Raises Refused as `mmd2` does.
    """
    sets, total = _pair(a, b), len(a) + len(b)
    i = torch.randint(total, (pairs,), generator=generator)
    j = (i + torch.randint(1, total, (pairs,), generator=generator)) % total  # never a row with itself
    both = zip(*(one.to(sets[0].device).split(at_once(_ROWS, *sets)) for one in (i, j)), strict=True)
    return float(filled(pairs, ((_at(sets, p) - _at(sets, q)).norm(dim=1) for p, q in both)).median())


@torch.no_grad()
def _mmd2(a: Float[Rows, "n d"], b: Float[Rows, "m d"], kernel: _Kernel, unbiased: bool) -> float:
    own = []
    for rows in (a, b):
        total, count = _own(rows, kernel).sum(), len(rows)
        if not unbiased:
            total = total + sum(kernel(row, row)[0, 0] for part in parts(rows) for row in part.split(1))
        own.append(total / (count * (count - 1 if unbiased else count)))
    return float(own[0] + own[1] - 2 * _cross(a, b, kernel)[0].mean())


def _gaussian(bandwidths: float | Sequence[float]) -> _Kernel:
    """sum_s exp(-|x - y|^2 / 2 s^2) from one matrix product, with one exponential for all dyadic s^2."""
    widths = sorted([bandwidths] if isinstance(bandwidths, int | float) else bandwidths, reverse=True)
    if not widths or not all(0 < s < math.inf for s in widths):
        raise Refused(f"bandwidths are one or more positive distances, not {bandwidths}")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        rate = 1 / widths[0] ** 2
        exponent = torch.addmm(-0.5 * rate * y.square().sum(1), x, y.T, alpha=rate)
        exponent.sub_(0.5 * rate * x.square().sum(1, keepdim=True)).clamp_(max=0)
        value = exponent.exp()
        total = value.clone() if len(widths) > 1 else value
        for wide, narrow in zip(widths, widths[1:], strict=False):
            squarings = 2 * math.log2(wide / narrow)  # exp(-d/2s^2) to the power wide^2 / narrow^2
            if abs(squarings - round(squarings)) < _DYADIC:
                for _ in range(round(squarings)):
                    value.square_()
            else:
                value = (exponent * (widths[0] / narrow) ** 2).exp_()
            total += value
        return total

    return kernel


def _own(rows: Float[Rows, "n d"], kernel: _Kernel) -> Float[Tensor, " n"]:
    """The sum of the kernel of each row with all other rows of its set, (N,)."""
    sums = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for i, j, tile in _upper([rows], kernel):
        sums[i] += tile.sum(1)
        if i != j:
            sums[j] += tile.sum(0)
    return sums


def _upper(sets: Sequence[Rows], kernel: _Kernel) -> Iterator[tuple[slice, slice, Tensor]]:
    """The tiles on and above the diagonal of the symmetric kernel matrix of all rows. The diagonal is set to zero."""
    total, step = sum(map(len, sets)), at_once(_ROWS, *sets)
    for start in range(0, total, step):
        i = slice(start, start + step)
        rows = _between(sets, i)
        for column in range(start, total, step):
            j = slice(column, column + step)
            tile = kernel(rows, _between(sets, j) if i != j else rows)
            yield i, j, tile.fill_diagonal_(0) if i == j else tile


def _between(sets: Sequence[Rows], part: slice) -> Tensor:
    """Consecutive rows (n, D) of sets that follow one another."""
    found, first = [], 0
    for rows in sets:
        found.append(rows[max(0, part.start - first) : max(0, part.stop - first)])
        first += len(rows)
    return torch.cat(found) if len(found) > 1 else found[0]


def _at(sets: Sequence[Rows], places: Tensor) -> Tensor:
    """The rows (n, D) at these places (n,) of sets that follow one another."""
    found, first = torch.empty(len(places), sets[0].shape[1], dtype=torch.float64, device=places.device), 0
    for rows in sets:
        here = (places >= first) & (places < first + len(rows))
        found[here] = rows[places[here] - first]
        first += len(rows)
    return found


def _cross(
    a: Float[Rows, "n d"], b: Float[Rows, "m d"], kernel: _Kernel
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """The mean kernel of each row of a with the rows of b, (N,), and of each row of b with the rows of a, (M,)."""
    of_a, of_b = (torch.zeros(len(rows), dtype=torch.float64, device=rows.device) for rows in (a, b))
    step = at_once(_ROWS, a, b)
    for mine, x in zip(of_a.split(step), a.split(step), strict=True):
        for its, y in zip(of_b.split(step), b.split(step), strict=True):
            tile = kernel(x, y)
            mine += tile.sum(1)
            its += tile.sum(0)
    return of_a / len(b), of_b / len(a)


def _pair(*sets: Rows) -> list[Rows]:
    """All sets in float64, or Refused unless they have equal width."""
    names = ("first", "second", "reference")
    return [checked(rows, name, width=sets[0].shape[-1]).double() for rows, name in zip(sets, names, strict=False)]


def _centred(*sets: Rows) -> list[Rows]:
    """All sets in float64 about one centre: the same distances, and less cancellation in their product form."""
    checked_sets = _pair(*sets)
    centre = mean_row(checked_sets[0])
    return [mapped(rows, lambda part: part - centre) for rows in checked_sets]
