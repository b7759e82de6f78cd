"""Counts k of n: memorized samples (AMS, UMS), and members found at a false-positive rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import betaincinv, expit, logit, ndtri
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import checked_level, takes_arrays
from memlib.shapes import Bool, Float, Shaped

_SLACK = 1e-9  # a fraction times a size may miss the whole number that was meant by a rounding error
_EQUAL = 1e-6  # a cosine this close to 1 is that of equal images, up to rounding


@dataclass(frozen=True)
class Count:
    """k of n, kept as two integers, because a percentage alone cannot be checked.

    k exceeds n in one case only: `ums` over all pairs, where n samples can match more than n training images.

    Raises:
        Refused: if n < 1 or k < 0.
    """

    k: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.k < 0:
            raise Refused(f"a count needs k >= 0 of n >= 1, not {self.k} of {self.n}")

    @property
    def rate(self) -> float:
        """k / n; above 1 only for `ums` over all pairs."""
        return self.k / self.n

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The exact binomial interval of the rate (Clopper and Pearson 1934).

        The interval holds for counts of independent samples, such as AMS. Distinct images (UMS) are not independent:
        their count saturates as n grows. Take the interval of a UMS as a rough one, and repeat the run to measure its
        spread.

        Raises:
            Refused: if k > n, since such a count is not a proportion, and for a level outside (0, 1).
        """
        if self.k > self.n:
            raise Refused(f"{self} is not a proportion and has no binomial interval: compare repeated runs")
        return _clopper_pearson(self.k, self.n, checked_level(level))

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"


def _clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """The exact binomial interval of k <= n. `scipy.stats` has it too, but takes a second to import."""
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    return low, float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0


@takes_arrays("similarity")
def in_band(similarity: Shaped[Tensor, "*s"], low: float, high: float = math.inf) -> Bool[Tensor, "*s"]:
    """Whether low <= similarity < high, for a tensor of any shape. A `high` of 1 includes 1, the largest cosine.

    SIDE sec. 3.4 uses the bands low 0.4-0.5, mid 0.5-0.6 and high 0.6-1.0 for SSCD. Other features need other bands:
    calibrate them with `threshold`.

    Raises:
        Refused: if low >= high, and for similarities that are NaN.
    """
    if similarity.isnan().any():
        raise Refused(f"{int(similarity.isnan().sum())} similarities are NaN: look at the features they came from")
    return _in_band(similarity, low, high)


def _in_band(similarity: Tensor, low: float, high: float) -> Tensor:
    """`in_band` of similarities (*S) that are known to be numbers."""
    if not low < high:
        raise Refused(f"the band from {low} to {high} is empty: give low < high")
    return similarity >= low if high == 1 else (similarity >= low) & (similarity < high)


@takes_arrays("similarity")
def ams(similarity: Shaped[Tensor, "..."], low: float, high: float = math.inf) -> Count:
    """Average memorization score: the samples whose nearest training image lies in the band. SIDE eq. 12.

    Arguments:
        similarity: (N,), the similarity of each sample to its nearest training image. The (N, 1) of `nearest` also
            works.
        low, high: the ends of the band, as in `in_band`.

    Raises:
        Refused: for any other shape, and as `in_band` does.
    """
    if similarity.dim() == 2 and similarity.shape[1] == 1:
        similarity = similarity[:, 0]
    if similarity.dim() != 1:
        raise Refused(f"AMS takes one similarity per sample, (N,), not a tensor of shape {tuple(similarity.shape)}")
    return Count(int(in_band(similarity, low, high).sum()), len(similarity))


@takes_arrays("hits")
def ums(hits: Shaped[Tensor, "..."], n: int) -> Count:
    """Unique memorization score: distinct training images that were hit, over n = N_G samples. SIDE eq. 13.

    There are two readings of SIDE. They differ in the hits that are counted, so say which one you report:

    - `ums(index[in_band(similarity, low, high)], n)` counts the best match of each sample (first version of SIDE). It
      never exceeds AMS.
    - `ums(matches(queries, train, low, high)[1], n)` counts all pairs in the band (later version). It may exceed AMS
      and even n.

    Arguments:
        hits: training indices, integers of any shape; -1 marks a sample that hit no image and is not counted.
        n: the number of generated samples.

    Raises:
        Refused: for a mask or other values that are not indices.
    """
    if hits.dtype == torch.bool or hits.is_floating_point() or hits.is_complex():
        raise Refused(f"UMS counts distinct training indices, which are integers, but was given {hits.dtype}")
    if (hits < -1).any():
        raise Refused(f"{int(hits.min())} is no training index: give indices from 0, and -1 for a miss")
    return Count(len(hits[hits >= 0].unique()), n)


@takes_arrays("similarity")
def threshold(similarity: Shaped[Tensor, "..."], fpr: float) -> float:
    """The smallest t such that at most a fraction `fpr` of these held-out images has similarity >= t.

    The statement is exact for these M images, ties included. To make it so, t lies one rounding step above the largest
    similarity that must stay below it.

    Arguments:
        similarity: (M,), the similarity of held-out real images to their nearest training image.
        fpr: the false-positive rate, between 0 and 1.

    Raises:
        Refused: for fewer than 1/fpr images, which cannot resolve the rate, and for NaN. Also if more than a fraction
            `fpr` has similarity 1 and none has more: these are copies of training images, and no cosine would reach t.
    """
    found, copies = _threshold(similarity, fpr), int((similarity >= 1 - _EQUAL).sum())
    if found > 1 - _EQUAL and float(similarity.max()) <= 1 + _EQUAL:
        raise Refused(
            f"{copies} of {similarity.numel()} held-out images equal a training image (similarity 1), and at a rate of "
            f"{fpr:g} no threshold is left that a sample can reach: put all copies of an image into one part"
        )
    return found


def _threshold(similarity: Tensor, fpr: float) -> float:
    """`threshold` for statistics (M,) of any range."""
    values, size = similarity.flatten(), similarity.numel()
    values = values if values.is_floating_point() else values.double()
    if not 0 < fpr < 1:
        raise Refused(f"a false-positive rate lies between 0 and 1, both excluded, but was {fpr}")
    allowed = math.floor(fpr * size + _SLACK)
    if allowed < 1:
        least = math.ceil(1 / fpr - _SLACK)
        raise Refused(f"{size} held-out images cannot resolve a false-positive rate of {fpr}: give at least {least}")
    if values.isnan().any():
        raise Refused("the statistics contain NaN, which no threshold separates: look at what they came from")
    highest_negative = values.topk(allowed + 1).values[-1]
    return float(torch.nextafter(highest_negative, torch.full_like(highest_negative, math.inf)))


@takes_arrays("members", "others")
def tpr_at_fpr(members: Shaped[Tensor, " n"], others: Shaped[Tensor, " m"], fpr: float = 0.01) -> Count:
    """The members found when at most a fraction `fpr` of the others is taken for members.

    The threshold is computed from the others, as in `threshold`, so the result is a point of the empirical ROC curve,
    without interpolation. Where others tie with members at the largest value of all, none of them is found.

    Arguments:
        members: (N,), one statistic for each member. Larger always means more member-like.
        others: (M,), one statistic for each image that is not a member.
        fpr: the false-positive rate.

    Raises:
        Refused: for fewer than 1/fpr others, which cannot resolve the rate, and for NaN.
    """
    if members.isnan().any():
        raise Refused("the statistics of members contain NaN, which has no rank: look at what they came from")
    # Integers, and two dtypes, are compared exactly in float64: a rounded threshold would cut a tie in two.
    members, others = members.double(), others.double()
    return Count(int((members >= _threshold(others, fpr)).sum()), members.numel())


@takes_arrays("similarity")
def top_means(
    similarity: Float[Tensor, " n"], fractions: Sequence[float] = (0.001, 0.005, 0.01, 0.05, 0.1)
) -> Float[Tensor, " t"]:
    """The mean of the ceil(fraction * N) largest similarities, for each fraction. SIDE appendix A, table 2.

    Arguments:
        similarity: (N,).
        fractions: T numbers in (0, 1].

    Returns:
        (T,), one mean for each fraction.

    Raises:
        Refused: for a fraction outside (0, 1], and for similarities that are NaN or none at all.
    """
    if not similarity.numel() or similarity.isnan().any():
        raise Refused("the largest similarities are those of one or more numbers, without NaN: look at their features")
    if wrong := [fraction for fraction in fractions if not 0 < fraction <= 1]:
        raise Refused(f"a top fraction must lie above 0 and be at most 1, but was {wrong[0]}")
    values = similarity.flatten().sort(descending=True).values
    return torch.stack([values[: math.ceil(fraction * len(values) - _SLACK)].mean() for fraction in fractions])


# The ROC curve of a membership statistic: larger = more member-like, always.


@takes_arrays("members", "others")
def roc(
    members: Shaped[Tensor, "..."], others: Shaped[Tensor, "..."]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """False- and true-positive rates of the test "statistic >= t", from (0, 0) to (1, 1).

    The curve has a point for each of the T distinct values t, from the largest down. A tie is therefore one slanted
    step, and the order of the samples does not matter.

    Arguments:
        members: (N,), one statistic for each member. Larger always means more member-like.
        others: (M,), one statistic for each image that is not a member.

    Returns:
        The false-positive rates and the true-positive rates, (T + 1,) each.

    Raises:
        Refused: for an empty side, another shape, and NaN.
    """
    members, others = _sorted(members, "members", 1), _sorted(others, "others", 1)
    values = torch.cat((members, others)).unique()  # ascending
    rates = [1 - torch.searchsorted(side, values).double() / len(side) for side in (others, members)]
    fpr, tpr = (torch.cat((rate.new_zeros(1), rate.flip(0))) for rate in rates)
    return fpr, tpr


@takes_arrays("members", "others")
def auc(
    members: Shaped[Tensor, "..."], others: Shaped[Tensor, "..."], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """The area under `roc`, which is P(member > other) + P(tie) / 2, and its interval.

    The interval is that of DeLong et al. 1988, on the logit scale. If all pairs agree, DeLong's variance is 0 and
    carries no information. Then min(N, M) disjoint pairs agreed, which bounds how often a pair disagrees (Clopper and
    Pearson 1934). The area hides the low false-positive rates, which matter most for membership: report `tpr_at_fpr` as
    well.

    Arguments:
        members: (N,), statistics of independent samples.
        others: (M,), statistics of independent samples.
        level: the confidence level.

    Returns:
        The area, and the two ends of its interval.

    Raises:
        Refused: for fewer than two values on a side, another shape, NaN, and a level outside (0, 1).
    """
    checked_level(level)
    members, others = _sorted(members, "members", 2), _sorted(others, "others", 2)
    below, above = _fraction_below(members, others), 1 - _fraction_below(others, members)  # (N,), (M,)
    # The mean of either is the area.
    area, variance = float(below.mean()), float(below.var() / len(below) + above.var() / len(above))
    if variance == 0:
        pairs = min(len(members), len(others))
        agree, _ = _clopper_pearson(pairs, pairs, level)
        return area, (area * agree, 1 - (1 - area) * agree)
    half = ndtri((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    return area, (float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def _sorted(values: Tensor, name: str, least: int) -> Float[Tensor, " n"]:
    """The statistics, ascending and in float64, where integers and other dtypes compare exactly; or Refused."""
    if values.dim() != 1 or len(values) < least:
        raise Refused(f"{name} must be (N,) with N >= {least}, one statistic each, not of shape {tuple(values.shape)}")
    if values.isnan().any():
        raise Refused(f"the statistics of {name} contain NaN, which has no rank: look at what they came from")
    return values.double().sort().values


def _fraction_below(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """The fraction of y (M,), which is ascending, that lies below each x (N,); ties count half. Returns (N,)."""
    return (torch.searchsorted(y, x) + torch.searchsorted(y, x, right=True)).double() / (2 * len(y))
