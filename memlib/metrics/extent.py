"""How far memorization reaches: up to which training-set size (EMM), and to how many distinct training images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.special import ndtri
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.counts import Count


class Emm(NamedTuple):
    """What a bisection over training-set sizes found.

    size: the largest size tried whose memorized share reached the level, 0 where none did. above: the smallest size
    tried that fell short of it, None where none did; the EMM lies in [size, above). trace: (size, share) in the order
    of the trials.
    """

    size: int
    above: int | None
    trace: list[tuple[int, Count | float]]


def emm(memorized: Callable[[int], Count | float], low: int, high: int, share: float = 0.9, ratio: float = 1.19) -> Emm:
    """Bisect log-size for the largest training set, low <= n <= high, of which a share >= `share` is memorized.

    memorized: trains on n images and returns the memorized share of its samples, a `Count` or a number in [0, 1]; it is
        called at `low` and `high` first, then between them until the bracket is narrower than `ratio` (or one image).
    share: 0.9 is that of Gu et al. 2023, who take l2-ratio < 1/3 for memorized.

    Assumes that the share falls with n; the ends of the bracket are the only check of it. Where `high` still reaches
    the level or `low` does not, one end is open and nothing lies between: read `above` and `size`. A share from one
    training run is itself random: repeat with other seeds for an interval. Raises Refused for settings that make no
    sense.
    """
    if not 1 <= low < high or not 0 < share <= 1 or not ratio > 1:
        raise Refused(
            f"need 1 <= low < high, 0 < share <= 1 and ratio > 1, not {low}, {high}, share={share} and ratio={ratio}"
        )
    trace: list[tuple[int, Count | float]] = []

    def reaches(n: int) -> bool:
        value = memorized(n)
        trace.append((n, value))
        return (value.rate if isinstance(value, Count) else float(value)) >= share

    if not reaches(low):
        return Emm(0, low, trace)
    if reaches(high):
        return Emm(high, None, trace)
    while high - low > 1 and high / low > ratio:
        middle = min(max(round((low * high) ** 0.5), low + 1), high - 1)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return Emm(low, high, trace)


def expected_unique(probability: Tensor, n: Tensor) -> Tensor:
    """sum_i 1 - (1 - p_i)^n, distinct images among n samples (K,), from the probability of each (M,). SIDE eq. 56.

    The p_i are per sample and need not sum to 1: the rest of the samples resemble no training image.
    """
    return -torch.expm1(torch.special.xlog1py(n[:, None], -probability)).sum(1)


def extrapolate_unique(hits: Tensor, samples: int, n: Tensor) -> Tensor:
    """Distinct images expected among n samples (K,), from a run of `samples` that hit image i hits[i] times (M,).

    Up to `samples`, the exact average over sub-runs (rarefaction). Beyond, images not seen so far are added: how many
    there are is estimated from those hit once and twice (Chao 1984), how fast they appear from the same numbers
    (Chao et al. 2014, Ecological Monographs 84:45). A lower bound in spirit, good for a few times `samples`; putting
    the observed frequencies into `expected_unique` instead assumes that no further image exists. hits may leave out
    images that were never hit. Raises Refused for more hits than samples.
    """
    hits = hits[hits > 0].double()
    if hits.sum() > samples:
        raise Refused(f"{int(hits.sum())} hits cannot come from {samples} samples: give the size of the run")
    once, twice = (hits == 1).sum().item(), (hits == 2).sum().item()
    unseen = (samples - 1) / samples * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    result = []
    for size in n.tolist():
        if size <= samples:
            missed = _log_choose(samples - hits, size) - _log_choose(torch.tensor(float(samples)).double(), size)
            result.append((1 - missed.exp()).sum())
        else:
            rate = once / (samples * unseen + once) if once else 0.0
            result.append(len(hits) + unseen * (1 - torch.tensor(1 - rate).double() ** (size - samples)))
    return torch.stack(result)


def _log_choose(total: Tensor, size: float) -> Tensor:
    """log of `total` choose `size`, -inf where size > total."""
    rest = total - size
    size_factorial = torch.lgamma(torch.tensor(size + 1.0).double())
    value = torch.lgamma(total + 1) - size_factorial - torch.lgamma(rest.clamp_min(0) + 1)
    return torch.where(rest < 0, -torch.inf, value)


def unique_difference(a: Tensor, b: Tensor, level: float = 0.95) -> tuple[int, tuple[float, float]]:
    """Distinct images hit by arm a less those hit by arm b, and a jackknife interval of it. Efron & Stein 1981.

    a, b: (N,), the image that sample i of each arm hit, -1 for none; equal i share a seed. Leaving out sample i costs
    an arm one image if no other of its samples hit that one, so the jackknife needs only these singletons. The variance
    errs upwards; a bootstrap would not do, as every resample repeats hits and so loses images. Raises Refused for rows
    that do not pair up.
    """
    if a.shape != b.shape or a.dim() != 1 or len(a) < 2:
        raise Refused(f"paired hits need equal shapes (N,) with N >= 2, not {tuple(a.shape)} and {tuple(b.shape)}")
    distinct = [len(hits[hits >= 0].unique()) for hits in (a, b)]
    lost = (_alone(a) - _alone(b)).cpu()
    half = float(ndtri((1 + level) / 2) * ((len(a) - 1) / len(a) * (lost - lost.mean()).square().sum()).sqrt())
    difference = distinct[0] - distinct[1]
    return difference, (difference - half, difference + half)


def _alone(hits: Tensor) -> Tensor:
    """1 where sample i is the only one to hit its image, else 0, (N,), float64."""
    counts = torch.bincount(hits[hits >= 0], minlength=1)
    return ((hits >= 0) & (counts[hits.clamp_min(0)] == 1)).double()
