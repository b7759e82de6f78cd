"""Judging a statistic: thresholds from other targets, the rates that result, and intervals over models and images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from memlib.errors import Refused
from memlib.membership.design import shadows
from memlib.metrics import Count, mean_interval
from memlib.metrics.counts import _threshold
from memlib.shapes import Bool, Shaped

_EQUAL = 1e-12  # a deviation this small is rounding


def threshold(others: Shaped[Tensor, "..."], fpr: float) -> float:
    """The smallest t such that at most a fraction `fpr` of these non-members has a statistic >= t.

    `metrics.threshold` for statistics of any range, and not only cosines.

    Arguments:
        others: (M,), the statistic of non-members.
        fpr: the false-positive rate, between 0 and 1.

    Raises:
        Refused: for fewer than 1/fpr non-members, which cannot resolve the rate, for NaN, and for a rate out of range.
    """
    return _threshold(others, fpr)


@dataclass(frozen=True)
class Transferred:
    """What `transferred` found.

    Arguments:
        tpr: for each of the T targets, its members found, of its members.
        fpr: for each target, its non-members taken for members, of its non-members: the rate that resulted.
        hits: (T, N) bools, whether the statistic reached the threshold of that target.
    """

    tpr: list[Count]
    fpr: list[Count]
    hits: Bool[Tensor, "t n"]


def transferred(
    scores: Shaped[Tensor, "..."],
    inside: Shaped[Tensor, "..."],
    fpr: float,
    within: Shaped[Tensor, "..."] | None = None,
) -> Transferred:
    """Rates of each target at a threshold from the other targets.

    The threshold of a target comes from the non-members of all other targets without its complement, pooled. A
    threshold drawn from the judged images themselves would meet its rate by construction; here the resulting rate is a
    finding, and belongs beside every TPR. Pooling assumes scores that are comparable between targets: those of `lira`,
    `rmia` and `calibrated`, or of models trained alike.

    Arguments:
        scores: (T, N), the statistic of N images for T targets, whose rows are those of `membership.halves`.
        inside: (T, N) bools, whether the target saw the image.
        fpr: the false-positive rate at which thresholds are drawn.
        within: (N,) bools, the images that are judged, such as canaries; thresholds come from all. None judges all.

    Raises:
        Refused: for fewer than 1/fpr non-members to draw from, a target without a member or a non-member to judge, rows
            that are no complements, NaN, and shapes that do not match.
    """
    if scores.ndim != 2 or inside.dtype != torch.bool or inside.shape != scores.shape:
        told = f"{tuple(scores.shape)} and {inside.dtype} {tuple(inside.shape)}"
        raise Refused(f"scores are (T, N), and inside bools of that shape, not {told}")
    if not len(inside) % 2 and (inside[0::2] == inside[1::2]).any():
        raise Refused("rows 2k and 2k + 1 of inside are not complements, as those of membership.halves are: order them")
    judged = torch.ones_like(inside[0]) if within is None else within
    if judged.dtype != torch.bool or judged.shape != inside.shape[1:]:
        raise Refused(f"within is ({inside.shape[1]},) bools, not {judged.dtype} of shape {tuple(judged.shape)}")
    if scores.isnan().any():
        raise Refused(f"{int(scores.isnan().sum())} scores are NaN, which has no rank: look at what they came from")
    lacking = [t for t, row in enumerate(inside[:, judged].tolist()) if len({*row}) < 2]
    if lacking:
        raise Refused(f"target {lacking[0]} has no member or no non-member among those judged: judge more images")
    scores, found, tpr, false = scores.double(), torch.zeros_like(inside), [], []
    for target in range(len(scores)):
        others = shadows(target, len(scores))
        found[target] = scores[target] >= threshold(scores[others][~inside[others]], fpr)
        for counts, side in ((tpr, inside[target] & judged), (false, ~inside[target] & judged)):
            counts.append(Count(int(found[target][side].sum()), int(side.sum())))
    return Transferred(tpr, false, found)


def pair_rates(counts: Sequence[Count]) -> list[float]:
    """The mean rate of each pair of complements, for `metrics.mean_interval`: T counts, T / 2 scalars.

    The pair is the unit. Two complements divide one pool, so one of them says much about the other.

    Raises:
        Refused: for an odd number of counts.
    """
    if len(counts) % 2:
        raise Refused(f"{len(counts)} targets are no pairs of complements: see membership.halves")
    return [(a.rate + b.rate) / 2 for a, b in zip(counts[::2], counts[1::2], strict=True)]


def crossed_interval(
    values: Shaped[Tensor, "..."],
    judged: Shaped[Tensor, "..."],
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Interval of the mean over judged cells, for new pairs of models and new images at once.

    Cells of one pair of complements share its training, and cells of one image its difficulty: neither are independent.
    The variance is V_pairs + V_images - V_cells, each the variance of the mean if only pairs, images or single cells
    varied, and at least the larger of the first two (two-way clustering; Cameron, Gelbach and Miller 2011). Student's
    quantile has Satterthwaite's degrees of freedom, which are pairs - 1 where pairs dominate. With 8 pairs and 200
    images it covers in 93 to 99 % of runs at rates from .02 to .37. The pigeonhole bootstrap of Owen 2007, for the same
    model, is up to twice as wide there, and an interval over pairs alone is too narrow where images differ. If no
    spread is left, the interval is that of `metrics.mean_interval` over pairs.

    Arguments:
        values: (T, N), such as the hits of `transferred`, or the difference of the hits of two arms. Rows are those of
            `membership.halves`.
        judged: (T, N) bools, the cells that count: `inside` for a TPR, `inside & within` for canaries.
        level: the confidence level.
        bounds: the least and the largest value of a cell, (-1, 1) for a difference. The interval does not leave them.

    Raises:
        Refused: for fewer than two pairs or judged images, a pair without a judged cell, cells that are not finite or
            outside the bounds, shapes that do not match, and a level outside (0, 1).
    """
    if values.ndim != 2 or judged.dtype != torch.bool or judged.shape != values.shape or len(values) % 2:
        told = f"{tuple(values.shape)} and {judged.dtype} {tuple(judged.shape)}"
        raise Refused(f"values are (T, N) with T even, and judged bools of that shape, not {told}")
    cells, counts = (one.unflatten(0, (-1, 2)).double() for one in (values, judged))
    cells = torch.where(counts > 0, cells, 0.0)
    if not cells.isfinite().all() or cells.numel() and not bounds[0] <= cells.min() <= cells.max() <= bounds[1]:
        raise Refused(
            f"cells are finite and lie between {bounds[0]} and {bounds[1]}: widen the bounds, or look at them"
        )
    cells, counts = cells.sum(1), counts.sum(1)  # (pairs, N): two complements are one unit
    pairs, images = len(counts), int((counts.sum(0) > 0).sum())
    if pairs < 2 or images < 2:
        raise Refused(f"an interval needs 2 pairs and 2 judged images or more, not {pairs} and {images}")
    if not counts.sum(1).all():
        raise Refused(f"pair {int((counts.sum(1) == 0).nonzero()[0])} has no judged cell: judge more images")
    by_pair = mean_interval(cells.sum(1) / counts.sum(1), level, bounds)
    mean = float(cells.sum() / counts.sum())
    parts = (cells - mean * counts) / counts.sum()  # what each cell adds to the error of the mean
    over_pairs = float(parts.sum(1).square().sum()) * pairs / (pairs - 1)
    over_images = float(parts.sum(0).square().sum()) * images / (images - 1)
    variance = max(over_pairs + over_images - float(parts.square().sum()), over_pairs, over_images)
    if variance <= (_EQUAL * max(abs(mean), 1.0)) ** 2:
        return by_pair
    freedom = variance**2 / (over_pairs**2 / (pairs - 1) + over_images**2 / (images - 1))
    freedom = min(max(freedom, min(pairs, images) - 1), pairs + images - 2)
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)
    return max(mean - half, bounds[0]), min(mean + half, bounds[1])
