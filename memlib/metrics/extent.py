"""How far memorization reaches: up to which training-set size (EMM), and to how many distinct training images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics.counts import Count
from memlib.metrics.intervals import difference_of_pairs
from memlib.shapes import Bool, Float, Int, Shaped


class Emm(NamedTuple):
    """The result of a bisection over training-set sizes. The EMM lies in [size, above).

    Attributes:
        size: the largest size tried at which the memorized fraction reached the level, or 0 if none did.
        above: the smallest size tried at which it fell short of the level, or None if none did.
        trace: pairs (size, memorized fraction), in the order in which they were tried.
    """

    size: int
    above: int | None
    trace: list[tuple[int, Count | float]]


def emm(
    memorized: Callable[[int], Count | float], low: int, high: int, fraction: float = 0.9, ratio: float = 1.19
) -> Emm:
    """The largest training-set size in [low, high] at which a fraction >= `fraction` is memorized, by bisection.

    The bisection is in log n. It assumes that the memorized fraction falls with n, and checks this only at `low` and
    `high`. If `high` still reaches the level, `above` is None; if `low` does not reach it, `size` is 0. In both cases
    the bisection stops there. The fraction from one training run is itself random: repeat with other seeds to get an
    interval.

    Arguments:
        memorized: trains on n images and returns the memorized fraction of its samples, a `Count` or a number in [0,
            1]. It is called at `low`, at `high`, and then between them until the bracket is narrower than `ratio` or
            one image.
        low, high: the smallest and the largest size to try.
        fraction: the level. 0.9 is that of Gu et al. 2023, who call a sample memorized if its l2-ratio is below 1/3.
        ratio: the ratio of the ends of the bracket at which the bisection stops.

    Raises:
        Refused: unless 1 <= low < high, 0 < fraction <= 1 and ratio > 1, and for a memorized fraction outside [0, 1].
    """
    if not 1 <= low < high or not 0 < fraction <= 1 or not ratio > 1:
        raise Refused(
            f"need 1 <= low < high, 0 < fraction <= 1 and ratio > 1, not low={low}, high={high}, fraction={fraction} "
            f"and ratio={ratio}"
        )
    trace: list[tuple[int, Count | float]] = []

    def reaches(n: int) -> bool:
        value = memorized(n)
        rate = value.rate if isinstance(value, Count) else float(value)
        if not 0 <= rate <= 1:
            raise Refused(f"the memorized fraction of {n} images lies between 0 and 1, but was {rate:g}")
        trace.append((n, value))
        return rate >= fraction

    if not reaches(low):
        return Emm(0, low, trace)
    if reaches(high):
        return Emm(high, None, trace)
    while high - low > 1 and high / low > ratio:
        middle = min(max(round((low * high) ** 0.5), low + 1), high - 1)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return Emm(low, high, trace)


@takes_arrays("probability", "n")
def expected_unique(probability: Float[Tensor, " m"], n: Shaped[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The expected number of distinct images among n samples, sum_i 1 - (1 - p_i)^n. SIDE eq. 56.

    Arguments:
        probability: (M,), the probability p_i that a sample hits image i. They need not sum to 1: the remaining samples
            resemble no training image.
        n: (K,), numbers of samples.

    Returns:
        (K,), one expected number for each n.

    Raises:
        Refused: for a probability outside [0, 1].
    """
    if not ((probability >= 0) & (probability <= 1)).all():
        raise Refused("a probability of hitting an image lies between 0 and 1: give hits divided by samples")
    return -torch.expm1(torch.special.xlog1py(n[:, None], -probability)).sum(1)


@takes_arrays("hits", "n")
def extrapolate_unique(hits: Int[Tensor, " m"], samples: int, n: Shaped[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The number of distinct images expected among n samples, estimated from a run of another length.

    Up to `samples`, this is the exact average over sub-runs (rarefaction). Beyond, it adds images that were not seen so
    far: their number is estimated from the images hit once and twice (Chao 1984), and so is the rate at which they
    appear (Chao et al. 2014, Ecological Monographs 84:45). Read the result as a lower bound that is good up to a few
    times `samples`. The observed frequencies in `expected_unique` would assume instead that no further image exists.

    Arguments:
        hits: (M,), how often the run hit each image. Images that were never hit may be left out.
        samples: the number of samples of the run.
        n: (K,), numbers of samples to estimate for.

    Returns:
        (K,), one estimate for each n.

    Raises:
        Refused: for more hits than samples, and for negative ones.
    """
    if (hits < 0).any():
        raise Refused(f"an image cannot be hit {int(hits.min())} times: give counts, not indices with -1 for a miss")
    often = hits[hits > 0].double()  # (distinct images hit,)
    if often.sum() > samples:
        raise Refused(f"{int(often.sum())} hits cannot come from {samples} samples: give the size of the run")
    once, twice = (often == 1).sum().item(), (often == 2).sum().item()
    unseen = (samples - 1) / samples * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    result = []
    for size in n.tolist():
        if size <= samples:
            missed = _log_choose(samples - often, size) - _log_choose(torch.tensor(float(samples)).double(), size)
            result.append((1 - missed.exp()).sum())
        else:
            rate = once / (samples * unseen + once) if once else 0.0
            result.append(len(often) + unseen * (1 - often.new_tensor(1 - rate) ** (size - samples)))
    return torch.stack(result)


def _log_choose(total: Float[Tensor, "*s"], size: float) -> Float[Tensor, "*s"]:
    """log of `total` choose `size`, -inf where size > total."""
    rest = total - size
    size_factorial = torch.lgamma(torch.tensor(size + 1.0).double())
    value = torch.lgamma(total + 1) - size_factorial - torch.lgamma(rest.clamp_min(0) + 1)
    return torch.where(rest < 0, -torch.inf, value)


@takes_arrays("a", "b")
def unique_difference(
    a: Int[Tensor, "..."], b: Int[Tensor, "..."], level: float = 0.95
) -> tuple[int, tuple[float, float]]:
    """The number of distinct images hit by arm a minus that of arm b, and its interval.

    Without sample i, an arm loses one image if no other of its samples hit that image. The jackknife (Efron and Stein
    1981), whose variance errs upwards, therefore needs only these singletons. Here they are paired values of 0 and 1,
    and the interval is N times the score interval of their difference (Tango 1998), moved to the difference of all
    distinct images. For many singletons it is that of the jackknife; for few it keeps its level, where the jackknife's
    has little or no width. A bootstrap would be wrong here: every resample repeats some hits and misses others, so it
    loses images.

    Arguments:
        a, b: (N,), the image that sample i of each arm hit, or -1 for none. Sample i of both arms has the same seed.
        level: the confidence level.

    Returns:
        The difference, and the two ends of its interval.

    Raises:
        Refused: for arms that do not pair up, for values below -1, and for a level outside (0, 1).
    """
    if a.shape != b.shape or a.dim() != 1 or len(a) < 2:
        raise Refused(f"paired hits need equal shapes (N,) with N >= 2, not {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.min(), b.min()) < -1:
        raise Refused(f"{int(min(a.min(), b.min()))} is no training index: give indices from 0, and -1 for a miss")
    distinct = [len(hits[hits >= 0].unique()) for hits in (a, b)]
    first, second = _alone(a), _alone(b)
    n, both = len(a), int((first & second.to(first.device)).sum())
    singletons = int(first.sum()) - int(second.sum())
    ends = difference_of_pairs(both, int(first.sum()) - both, int(second.sum()) - both, n, level)
    difference = distinct[0] - distinct[1]
    low, high = (difference + n * end - singletons for end in ends)
    return difference, (low, high)


def _alone(hits: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether sample i is the only one that hits its image, (N,)."""
    counts = torch.bincount(hits[hits >= 0], minlength=1)
    return (hits >= 0) & (counts[hits.clamp_min(0)] == 1)
