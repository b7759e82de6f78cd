"""What was found, in sentences that hold on another processor: verdicts, words and rounded numbers."""

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.learning_rate.fixed_level import problem, risk_bound
from memlib.papers.learning_rate.study import digits_rules, measures, rules
from memlib.papers.learning_rate.study.results import (
    Digits,
    Dimensions,
    Edge,
    Gaps,
    Memory,
    Relaxation,
    Results,
    Smoothness,
    Theorem,
)


def sentences(results: Results) -> dict[str, list[str]]:
    """Sentences of the groups that were run, by figure of the chapter."""
    found: dict[str, list[str]] = {"data": results.description.split("; ")}
    if results.memory:
        found |= {"memory": _memory(results.memory), "units": _units(results.memory)}
        found["data"] += _networks(results.memory)
    if results.theorem:
        found["theorem"] = _theorem(results.theorem)
    if results.edge:
        found |= {"edge": _edge(results.edge), "sharpening": _sharpening(results.edge)}
    if results.smoothness:
        found["smoothness"] = _smoothness(results.smoothness)
    if results.gaps:
        found["gaps"] = _gaps(results.gaps)
    if results.relaxations:
        found["relaxations"] = _relaxations(results.relaxations)
    if results.dimensions:
        found["dimensions"] = _dimensions(results.dimensions)
    if results.digits:
        found |= {"emm": _emm(results.digits), "frontier": _frontier(results.digits)}
    return found


def bounds(results: Theorem) -> dict[str, Tensor]:
    """The right side of the theorem with C = 1 for points at a distance of 1, and its ceiling, by sigma: (L,)."""
    levels = torch.tensor(results.levels).double()
    sigma = levels / (1 + levels**2).sqrt()
    even = torch.arange(results.n_points).double()[:, None].expand(len(sigma), -1, -1)
    stack = problem(even, sigma)
    return {
        "sigma": sigma,
        "ceiling": 1 / sigma**2,
        "fixed": risk_bound(stack, 10.0),
        "growing": risk_bound(stack, results.bound / sigma**2),
    }


def _networks(found: Memory) -> list[str]:
    parts = found.diverged.items()
    return [f"{arm}: {lost.numel()} networks on the line, {int(lost.sum())} diverged" for arm, lost in parts]


def _memory(found: Memory) -> list[str]:
    told = []
    for arm in ("mini-batch", "full batch"):
        for e in (found.rates.index(found.decisive), len(found.rates) - 1):
            undone, stays = (
                metrics.mean_interval(part(found, arm)[e])[0] > 0
                for part in (measures.reversible, measures.irreversible)
            )
            names = f"{arm}, η = {found.rates[e]:.0e}:"
            told.append(f"{names:24s} annealing undoes excess risk: {_yes(undone)}; some stays: {_yes(stays)}")
    back = metrics.mean_interval(measures.remembered(found)[found.rates.index(found.decisive)])[0] > 0
    return [
        *told,
        f"memorized samples return when the rate is annealed: {_yes(back)}",
        f"L1: {rules.l1(found).verdict}",
    ]


def _units(found: Memory) -> list[str]:
    told = []
    for arm, inside in found.inside.items():
        left = ", ".join(f"{abs(value):.1f}" for value in inside[1].mean(1))
        told.append(f"{arm}: fraction of kinks left among the data, by rate: {left}")
    nearest = int(found.truth.mean(1).argmin())
    place = "between the ends" if 0 < nearest < len(found.rates) - 1 else "at an end"
    return [*told, f"the rate whose score is nearest to the true one lies {place}"]


def _theorem(found: Theorem) -> list[str]:
    by, measured = bounds(found), found.relative[-1].mean(0)
    crossing = (by["sigma"] * (by["fixed"] > by["ceiling"])).max()
    orders = torch.log10(measured * by["ceiling"] / by["growing"])
    beyond = metrics.Count(int((found.sharp[-1] <= 1).sum()), found.sharp[-1].numel())
    mostly = "most" if beyond.rate > 0.5 else "few"
    silent = float(found.relative[-1].mean() / found.silent.double().mean())
    return [
        f"thresholds of runs and levels: {found.threshold.min():.0f} to {found.threshold.max():.0f}",
        f"of s*, {silent:.1f} is missing at {found.multiples[-1]:g} times the threshold",
        f"at that rate {mostly} networks are at or below the edge of stability",
        f"with C = 1 and A = 10 the bound exceeds the ceiling up to σ = {crossing:.2f}",
        f"with C = 1 and A = {found.bound:.0f}/σ² it lies {orders.min():.0f} to {orders.max():.0f} orders of "
        "magnitude too low",
        f"L2: {rules.l2(found).verdict}",
    ]


def _edge(found: Edge) -> list[str]:
    count, mini = (measures.agreeing(found, arm) for arm in found.leaving.rise)
    return [
        f"full batch: {count.k} of {count.n} runs stay below their edge and leave above it; mini-batch: {mini.k}",
        f"the gradient at the minima is {_below(float(found.leaving.gradient.median()))} of that at the start",
        f"after a thousand steps above the edge, sharpness is "
        f"{_side(float(found.leaving.ends[1, -3:].median()))} the edge",
    ]


def _sharpening(found: Edge) -> list[str]:
    told = []
    for arm in found.sharpness:
        inside = "within" if measures.at_edge(measures.settled(found, arm)[1]) else "not within"
        told.append(f"{arm:16s} settles {inside} a factor of 1.5 of its edge")
    parts = [found.with_kinks[arm] / sharp.clamp_min(0.05) for arm, sharp in found.sharpness.items()]
    extra = max(float(ratio[2:].median(2).values.amax()) for ratio in parts)
    return [
        *told,
        f"the kinks raise a median sharpness by half or more: {_yes(extra > 1.5)}",
        f"L3: {rules.l3(found).verdict}",
        f"L3b: {rules.l3b(found).verdict}",
    ]


def _smoothness(found: Smoothness) -> list[str]:
    at = measures.kept(found)
    powers = {"all rates": list(range(len(found.rates)))} | ({"rates that keep their units": at} if len(at) > 2 else {})
    told = []
    for name, places in powers.items():
        _, (_, high) = measures.roughness_power(found, places)
        told.append(f"{name}: the roughness falls with the rate: {'yes' if high < 0 else 'not shown'}")
    return [
        *told,
        f"the roughness of s* goes like σ/μ to the power {measures.star_power(found):.1f}",
        f"L6: {rules.l6(found).verdict}",
    ]


def _gaps(found: Gaps) -> list[str]:
    told = []
    for name, (_, (low, high)) in measures.gap_rises(found).items():
        word = "grows" if low > 0 else "falls" if high < 0 else "is not shown to change"
        told.append(f"{name:8s} what the rate takes from s* {word} with the smallest gap")
    return [*told, f"L5: {rules.l5(found).verdict}"]


def _relaxations(found: dict[str, Relaxation]) -> list[str]:
    told = []
    for kind, one in found.items():
        mean = one.excess.mean(1)
        worse = "worse" if mean[-1] > 1.5 * mean.min() else "not worse"
        lost = "none diverged" if one.alive.all() else "some diverged"
        told.append(f"{kind:21s} the largest rate is {worse} than the best by half; {lost}")
    return told


def _dimensions(found: Dimensions) -> list[str]:
    shares = (found.memorized / found.exact.clamp_min(0.01)).mean(1)
    star, truth, control = (float(part[-1].mean()) for part in (found.of_optimum, found.of_truth, found.control))
    return [
        f"memorized fraction in the largest dimension: {'smaller' if shares[-1] < shares[0] else 'not smaller'}",
        f"there, s* is learnt to {_half(star)} than half, the true score to {_half(truth)}",
        f"the control learns the true score from many points to {_half(control)} than half",
        f"L4: {rules.l4(found).verdict}",
    ]


def _emm(found: Digits) -> list[str]:
    peak = digits_rules.peak_rate(found)
    sizes = digits_rules.emm(found)[:, found.choosing :].mean(1)
    between = 0 < peak < len(found.rates) - 1
    false, of = found.false_copies
    return [
        f"the models that choose find the largest EMM at a rate {'between the ends' if between else 'at an end'}",
        f"at the largest rate EMM is {'smaller' if sizes[-1] < sizes[peak] else 'not smaller'} in those that test",
        f"held-out images that the rule would call copies: {false} of {of}",
        f"L7: {digits_rules.l7(found).verdict}",
    ]


def _frontier(found: Digits) -> list[str]:
    ends = digits_rules.ends(found.constant, found.choosing).mean(1)
    worst = ends[-1, digits_rules.LOSS] >= ends[:, digits_rules.LOSS].max()
    annealed = digits_rules.ends(found.annealed).mean(1)[:, digits_rules.COPIED]
    best = found.rates[int(annealed.argmax())]
    gaps = (digits_rules.beside_smallest(found), digits_rules.at_equal_loss(found))
    more, less = ("more" if float(gap.mean()) > 0.01 else "no more" for gap in gaps)
    return [
        f"the largest rate has the largest training loss at the end: {_yes(bool(worst))}",
        f"at equal training loss the peak copies {more} than the smallest rate",
        f"and {less} than the largest",
        f"annealed, most is copied from a start at {'the smallest' if best == found.rates[0] else 'a larger'} rate",
        f"L7b: {digits_rules.l7b(found).verdict}",
    ]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _half(fraction: float) -> str:
    return "more" if fraction > 0.5 else "less"


def _below(fraction: float) -> str:
    return "below 1e-3" if fraction < 1e-3 else "below a tenth" if fraction < 0.1 else "more than a tenth"


def _side(ratio: float) -> str:
    return "at or below" if ratio < 1.1 else "above"
