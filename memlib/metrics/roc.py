"""The ROC curve of a membership statistic and the area under it; `counts.tpr_at_fpr` is one point of the curve.

Larger = more member-like, always.
"""

import math

import torch
from scipy.special import expit, logit
from scipy.stats import norm
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.counts import Count


def roc(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """False- and true-positive rates of "statistic >= t", (T + 1,) each, from (0, 0) to (1, 1).

    members (N,), others (M,). A point for each of the T distinct values t, from the largest down, so a tie is one
    slanted step and the order of the samples does not matter. Raises Refused for an empty side and for NaN.
    """
    members, others = _sorted(members, "members", 1), _sorted(others, "others", 1)
    values = torch.cat((members, others)).unique()    # ascending
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
    below, above = _share_below(members, others), 1 - _share_below(others, members)    # (N,), (M,): means are the area
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
