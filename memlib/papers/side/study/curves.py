"""What the chapter draws: curves and bars from results, with their intervals, without a line of drawing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from memlib import metrics
from memlib.metrics import Count
from memlib.papers.side.study.compare import BANDS, gains
from memlib.papers.side.study.memorization import STARTS
from memlib.papers.side.study.results import Arms, Model, Theory, Weights
from memlib.papers.side.study.rules import interval

Bar = tuple[float, tuple[float, float]]  # a value and its 95 % interval
GAINS = "Less Random, mean of the networks, 95 % intervals"


def kept_gains(kept: Mapping[str, Any]) -> dict[str, Bar]:
    """AMS of each arm less that of Random in a kept run, mean of its networks with the interval."""
    rows = kept["tables"][GAINS][1:]
    return {arm: (float(mean), (float(low), float(high))) for arm, mean, low, high, *_ in rows}


def told(kept: Mapping[str, Any]) -> str:
    """What the kept run of a scale found, in two sentences of its own figures and verdicts."""
    claims, where = kept["claims"], kept["provenance"]["parameters"]
    rates, alone = claims["S1"]["figure"], claims["S1a"]
    percent = {arm: f"{100 * rate:.1f} %" for arm, rate in rates.items()}
    return (
        f"On {where['data']} ({claims['S1']['scale']}, {alone['n']} networks), {percent['Random']} of plain samples "
        f"copy a member, and {percent['CL-TD own']} of those of an attacker with the model alone "
        f"(S1a: {alone['verdict']}). "
        f"With the training set's labels, as in the paper, it is {percent['OL-TD']} (S1: {claims['S1']['verdict']})."
    )


def overruled(small: Mapping[str, Any], large: Mapping[str, Any]) -> str:
    """The claims on which a larger scale overrules a smaller one that had decided, in a sentence; from kept runs."""
    undecided, told = "needs data or scale", []
    for name, claim in sorted(large["claims"].items()):
        before = small["claims"].get(name, {}).get("verdict", undecided)
        if undecided not in (before, claim["verdict"]) and before != claim["verdict"]:
            told.append(
                f"{name} ({before} at {small['claims'][name]['scale']}, {claim['verdict']} at {claim['scale']})"
            )
    return f"Overruled by the larger scale: {', '.join(told) or 'none'}."


def arm_gains(arms: Arms) -> dict[str, Bar]:
    """AMS of each arm on all networks less that of Random, with intervals over the networks."""
    found = {}
    for arm in arms.hits[-1]:
        if arm != "Random":
            rate = gains(arms, arm, "Random")[0]
            found[arm] = sum(rate) / len(rate), interval(rate)
    return found


def figure_4(arms: Arms) -> dict[str, dict[str, list[float]]]:
    """AMS and UMS in each band by arm, mean of the networks: the bars of SIDE's figure 4."""
    n, found = len(arms.hits[0]["Random"]), {}
    for arm in arms.hits[-1]:
        mean = torch.tensor([[one[arm][band] for band in BANDS] for one in arms.bands]).double().mean(0) / n
        found[arm] = {"AMS": mean[:, 0].tolist(), "UMS": mean[:, 1].tolist()}
    return found


def by_weight(weights: Weights) -> dict[str, list[float]]:
    """AMS and UMS in the high band, the interval of AMS over networks, and the fraction that resembles a non-member, at
    each weight of the arm that decides."""
    high = weights.bands[weights.arm][:, :, 2]  # (K, W, 2)
    ends = [interval(column.tolist(), (0.0, 1.0)) for column in high[:, :, 0].T]
    return {
        "AMS": high[:, :, 0].mean(0).tolist(),
        "low": [max(0.0, low) for low, _ in ends],
        "high": [min(1.0, high) for _, high in ends],
        "UMS": high[:, :, 1].mean(0).tolist(),
        "non-members": weights.non_members[weights.arm].mean(0).tolist(),
    }


def swept_arms(weights: Weights) -> dict[str, tuple[list[float], list[float]]]:
    """The weights of every swept arm, and its AMS in the high band there, mean of the networks."""
    return {arm: (weights.of_arm[arm], values[:, :, 2, 0].mean(0).tolist()) for arm, values in weights.bands.items()}


def by_ratio(theory: Theory) -> tuple[dict[str, tuple[float, float]], float]:
    """For each labelling the ratio of theorem 1 and the copies as a fraction of the samples, mean of the networks; and
    the rank correlation of the two over the labellings."""
    from scipy.stats import spearmanr  # slow to import, and worker processes do not need it

    count = len(theory.ratio)
    found = {
        name: (
            sum(one[name] for one in theory.ratio) / count,
            sum(one[name] for one in theory.copies) / count / theory.n,
        )
        for name in theory.ratio[0]
    }
    first, second = zip(*found.values(), strict=True)
    return found, float(spearmanr(first, second)[0])  # pyright: ignore[reportArgumentType]  # SciPy is untyped


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
