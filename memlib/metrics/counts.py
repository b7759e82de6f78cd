"""Counts k of n: memorized samples (AMS, UMS), members found at a false-positive rate, and the threshold they need."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from torch import Tensor

from memlib.errors import Refused

_SLACK = 1e-9  # a share times a size may come out a rounding error off the whole number that was meant


@dataclass(frozen=True)
class Count:
    """k of n, kept as two integers: a percentage without them cannot be checked. Raises Refused if n < 1 or k < 0.

    k may exceed n in one case only: `ums` over all pairs, where n samples can match more than n training images.
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

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """The exact binomial interval of the rate (Clopper and Pearson 1934); None if k > n, which is no proportion.

        It is for counts of independent samples, such as AMS. Distinct images (UMS) are not independent: their count
        saturates as n grows, so read the interval of a UMS as a rough one and repeat the run to learn its spread.
        """
        if self.k > self.n:
            return None
        low, high = binomtest(self.k, self.n).proportion_ci(level, method="exact")
        return float(low), float(high)

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"


def in_band(similarity: Tensor, low: float, high: float = math.inf) -> Tensor:
    """Whether low <= similarity < high, any shape; a `high` of 1 includes 1, where a cosine ends.

    SIDE sec. 3.4 uses low 0.4-0.5, mid 0.5-0.6 and high 0.6-1.0 for SSCD; calibrate other features with `threshold`.
    """
    if not low < high:
        raise Refused(f"the band from {low} to {high} is empty: give low < high")
    return similarity >= low if high == 1 else (similarity >= low) & (similarity < high)


def ams(similarity: Tensor, low: float, high: float = math.inf) -> Count:
    """Average memorization score: samples whose nearest training image lies in the band. SIDE eq. 12.

    similarity: (N,), of each sample to its nearest training image; (N, 1) as `nearest` returns it will do. See
    `in_band` for the ends. Raises Refused for any other shape.
    """
    if similarity.dim() == 2 and similarity.shape[1] == 1:
        similarity = similarity[:, 0]
    if similarity.dim() != 1:
        raise Refused(f"AMS takes one similarity per sample, (N,), not a tensor of shape {tuple(similarity.shape)}")
    return Count(int(in_band(similarity, low, high).sum()), len(similarity))


def ums(hits: Tensor, n: int) -> Count:
    """Unique memorization score: how many distinct training images were hit, over n = N_G samples. SIDE eq. 13.

    hits: training indices, integers of any shape. The two readings in print differ in what is passed:
    `ums(index[in_band(similarity, low, high)], n)`, the best match of each sample (SIDE, first version), never
    exceeds AMS; `ums(matches(queries, train, low, high)[1], n)`, all pairs in the band (later version), may exceed
    AMS and even n. Say which. Raises Refused for a mask or anything else that is not an index.
    """
    if hits.dtype == torch.bool or hits.is_floating_point() or hits.is_complex():
        raise Refused(f"UMS counts distinct training indices, which are integers, but was given {hits.dtype}")
    return Count(len(hits.unique()), n)


def threshold(similarity: Tensor, fpr: float) -> float:
    """The smallest t such that at most a share `fpr` of these held-out images has similarity >= t.

    similarity: (M,), of held-out real images to their nearest training image. The statement is exact about these M
    images, ties included; t lies one rounding step above the largest similarity that must stay below it.
    Raises Refused for fewer than 1/fpr images, which cannot resolve the rate, and for NaN.
    """
    values, size = similarity.flatten(), similarity.numel()
    if not 0 < fpr < 1:
        raise Refused(f"a false-positive rate lies between 0 and 1, both excluded, but was {fpr}")
    allowed = math.floor(fpr * size + _SLACK)
    if allowed < 1:
        least = math.ceil(1 / fpr - _SLACK)
        raise Refused(f"{size} held-out images cannot resolve a false-positive rate of {fpr}: give at least {least}")
    if values.isnan().any():
        raise Refused("similarities contain NaN, which no threshold separates: look at the features they came from")
    highest_negative = values.topk(allowed + 1).values[-1]
    return float(torch.nextafter(highest_negative, torch.full_like(highest_negative, math.inf)))


def tpr_at_fpr(members: Tensor, others: Tensor, fpr: float = 0.01) -> Count:
    """Members found when at most a share `fpr` of the others is taken for a member.

    members (N,), others (M,): one statistic each, larger = more member-like, always. The threshold is that of the
    others (`threshold`), so the point lies on the empirical ROC curve; no interpolation. Raises Refused as `threshold`.
    """
    # Integers, and two dtypes, are compared exactly in float64: a rounded threshold would cut a tie in two.
    members, others = members.double(), others.double()
    return Count(int((members >= threshold(others, fpr)).sum()), members.numel())


def top_means(similarity: Tensor, shares: Sequence[float] = (0.001, 0.005, 0.01, 0.05, 0.1)) -> Tensor:
    """Mean of the ceil(share * N) largest similarities, for each share, (len(shares),). SIDE appendix A, table 2.

    similarity: (N,). Raises Refused for a share outside (0, 1].
    """
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise Refused(f"a top share lies above 0 and at most at 1, but was {wrong[0]}")
    values = similarity.flatten().sort(descending=True).values
    return torch.stack([values[: math.ceil(share * len(values) - _SLACK)].mean() for share in shares])


# The ROC curve of a membership statistic: larger = more member-like, always.


def roc(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """False- and true-positive rates of "statistic >= t", (T + 1,) each, from (0, 0) to (1, 1).

    members (N,), others (M,). A point for each of the T distinct values t, from the largest down, so a tie is one
    slanted step and the order of the samples does not matter. Raises Refused for an empty side and for NaN.
    """
    members, others = _sorted(members, "members", 1), _sorted(others, "others", 1)
    values = torch.cat((members, others)).unique()  # ascending
    rates = [1 - torch.searchsorted(side, values).double() / len(side) for side in (others, members)]
    fpr, tpr = (torch.cat((rate.new_zeros(1), rate.flip(0))) for rate in rates)
    return fpr, tpr


def auc(members: Tensor, others: Tensor, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Area under `roc`, P(member > other) + P(tie) / 2, and its interval: DeLong et al. 1988, on the logit scale.

    members (N,), others (M,), independent samples. Where all pairs agree, DeLong's variance is 0 and says nothing:
    then min(N, M) disjoint pairs that agreed bound how often one does not (Clopper and Pearson 1934). The area hides
    the low false-positive rates at which membership matters: read `tpr_at_fpr` beside it. Raises Refused for fewer
    than two values on a side and for NaN.
    """
    members, others = _sorted(members, "members", 2), _sorted(others, "others", 2)
    below, above = _share_below(members, others), 1 - _share_below(others, members)  # (N,), (M,): means are the area
    area, variance = float(below.mean()), float(below.var() / len(below) + above.var() / len(above))
    if variance == 0:
        agree, _ = Count(pairs := min(len(members), len(others)), pairs).interval(level)
        return area, (area * agree, 1 - (1 - area) * agree)
    half = norm.ppf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    return area, (float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def _sorted(values: Tensor, name: str, least: int) -> Tensor:
    """The statistics ascending, in float64, where integers and other dtypes compare exactly; or Refused."""
    if values.dim() != 1 or len(values) < least:
        raise Refused(f"{name} must be (N,) with N >= {least}, one statistic each, not of shape {tuple(values.shape)}")
    if values.isnan().any():
        raise Refused(f"the statistics of {name} contain NaN, which has no rank: look at what they came from")
    return values.double().sort().values


def _share_below(x: Tensor, y: Tensor) -> Tensor:
    """The share of y (M,), ascending, below each x (N,), ties counting half, (N,)."""
    return (torch.searchsorted(y, x) + torch.searchsorted(y, x, right=True)).double() / (2 * len(y))
