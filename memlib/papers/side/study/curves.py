"""What the chapter draws: curves and bars from results, with their intervals, without a line of drawing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from memlib import metrics
from memlib.metrics import Count
from memlib.papers.side.study.memorization import STARTS
from memlib.papers.side.study.results import Arms, Model, Weights
from memlib.papers.side.study.rules import paired, resampled_tops, tops_of

Bar = tuple[float, tuple[float, float]]  # a value and its 95 % interval


def kept_rates(claims: Mapping[str, Any]) -> dict[str, Bar]:
    """The fraction of samples that copy a member, by arm, with exact intervals, from the records of S1 and S4."""
    n = claims["S1"]["n"]
    rates = claims["S1"]["figure"] | claims["S4"]["figure"]
    return {arm: (rate, Count(round(rate * n), n).interval()) for arm, rate in rates.items()}


def told(kept: Mapping[str, Any]) -> str:
    """What the kept run of a scale found, in two sentences of its own figures and verdicts."""
    claims, where = kept["claims"], kept["provenance"]["parameters"]
    rates = claims["S1"]["figure"] | claims["S4"]["figure"]
    percent = {arm: f"{rate:.0%}" for arm, rate in rates.items()}
    return (
        f"On {where['data']} ({claims['S1']['scale']}), {percent['Random']} of plain samples copy a member, "
        f"{percent['OL-TD']} with real labels (S1: {claims['S1']['verdict']}) and {percent['CL-TD']} with clusters, "
        f"which need no training image. Random labels reach {percent['RL-TD (training)']} (S4, that they are poorer: "
        f"{claims['S4']['verdict']})."
    )


def gains(arms: Arms) -> dict[str, Bar]:
    """AMS of each arm less that of Random, on the first network, with paired intervals."""
    first, found = arms.hits[0], {}
    for arm, hits in first.items():
        change = float((hits >= 0).double().mean() - (first["Random"] >= 0).double().mean())
        found[arm] = (change, paired(hits, first["Random"]) if arm != "Random" else (0.0, 0.0))
    return found


def by_weight(weights: Weights) -> dict[str, list[float]]:
    """AMS, its exact interval, UMS and the fraction in the high band of a non-member, at each weight."""
    copies = weights.similarity >= weights.high
    n = copies.shape[1]
    ends = [Count(int(one.sum()), n).interval() for one in copies]
    nearest = [one.where(where, -1) for one, where in zip(weights.nearest, copies, strict=True)]
    return {
        "AMS": copies.double().mean(1).tolist(),
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
        "UMS": [metrics.ums(one, n).rate for one in nearest],
        "non-members": (weights.to_non_members >= weights.high).double().mean(1).tolist(),
    }


def top_bands(weights: Weights) -> dict[str, tuple[Tensor, Tensor]]:
    """The 95 % bootstrap band of the mean of each top fraction, on samples of odd number, (W,) and (W,)."""
    tops = tops_of(weights.similarity.shape[1])
    again = torch.stack([resampled_tops(one[1::2], tops) for one in weights.similarity])  # (W, 400, T)
    low, high = again.quantile(0.025, 1), again.quantile(0.975, 1)
    return {f"top {100 * top:g} %": (low[:, i], high[:, i]) for i, top in enumerate(tops)}


def distinct_members(model: Model) -> tuple[Tensor, dict[str, Tensor]]:
    """Distinct members copied by numbers of plain samples (20,): counted, extrapolated from the first quarter of them,
    and by the formula of SIDE's appendix B on the frequencies of that quarter."""
    hits, n = model.hits, len(model.hits)
    budgets, quarter = torch.linspace(n / 20, n, 20).long(), n // 4
    early = torch.bincount(hits[:quarter][hits[:quarter] >= 0], minlength=model.members)
    return budgets, {
        "counted": torch.tensor([metrics.ums(hits[:budget], n).k for budget in budgets]),
        "extrapolated": metrics.extrapolate_unique(early, quarter, budgets),
        "frequencies": metrics.expected_unique(early.double() / quarter, budgets),
    }


def along_training(model: Model) -> dict[str, list[Bar]]:
    """The fractions of `Model.along` with exact intervals."""
    found = {}
    for name, values in model.along.items():
        counts = [Count(round(STARTS * value), STARTS) for value in values.tolist()]
        found[name] = [(count.rate, count.interval()) for count in counts]
    return found
