"""What was found, in sentences that hold on another processor: verdicts, words and rounded numbers."""

import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from memlib.papers.learning_rate.fixed_level import problem, risk_bound
from memlib.papers.learning_rate.study import rules
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
        found |= {"memory": _memory(results.memory), "truth": _truth(results.memory)}
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


def headline(kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Three sentences from the kept records of a run, by claim, in lines of a page's width."""
    figures = {name: list(claim["figure"].values()) for name, claim in kept.items()}
    word = {name: claim["verdict"] for name, claim in kept.items()}
    (small, large, _), (below, above), ratio = figures["L1"], figures["L3"], figures["L7"][-1]
    text = (
        f"At the {kept['L1']['scale']} scale the memorized fraction is {small:.2f} at the two smallest learning rates "
        f"and {large:.2f} at the two largest (L1: {word['L1']}). Full-batch descent leaves {below:.0%} of the minima "
        f"that memorize below the edge of stability and {above:.0%} above it (L3: {word['L3']}). On digits the largest "
        f"rate has {ratio:.1f} times the Frechet distance of stopping early at a smaller rate (L7: {word['L7']})."
    )
    return textwrap.wrap(text, 86)


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
    for name, (_, (low, high)) in rules.risk_powers(found).items():
        word = "yes" if low > 0 else "no" if high < 0 else "not shown"
        told.append(f"{name:30s} the excess risk grows with the rate: {word}")
    return [*told, f"L1: {rules.l1(found).verdict}"]


def _truth(found: Memory) -> list[str]:
    nearest = int(found.truth.mean(1).argmin())
    place = "between the ends" if 0 < nearest < len(found.rates) - 1 else "at an end"
    nearer = "s*" if found.excess[0].mean() < found.truth[0].mean() else "the true score"
    told = [
        f"the rate whose score is nearest to the true one lies {place}",
        f"at the smallest rate the score is nearer to {nearer}",
    ]
    for arm, inside in found.inside.items():
        left = ", ".join(f"{value:.1f}" for value in inside)
        told.append(f"{arm}: fraction of kinks left among the data, by rate: {left}")
    return told


def _theorem(found: Theorem) -> list[str]:
    by, measured = bounds(found), found.relative[2].mean(0)
    crossing = (by["sigma"] * (by["fixed"] > by["ceiling"])).max()
    orders = torch.log10(measured * by["ceiling"] / by["growing"])
    return [
        f"the rate above the threshold is {found.rates[2]:.0f}",
        f"with C = 1 and A = 10 the bound exceeds the ceiling up to σ = {crossing:.2f}",
        f"with C = 1 and A = {found.bound:.0f}/σ² it lies {orders.min():.0f} to {orders.max():.0f} orders of "
        "magnitude too low",
        f"L2: {rules.l2(found).verdict}",
    ]


def _edge(found: Edge) -> list[str]:
    below, above = rules.left_of_edge(found)
    early, _ = rules.left_of_edge(found, "mini-batch")
    return [
        f"full batch: {below} leave below the edge, {above} above it",
        f"mini-batch: {'some' if early.k else 'none'} leave below the edge as well",
    ]


def _sharpening(found: Edge) -> list[str]:
    peak = rules.peak(found)
    inside = "between" if 0.8 < peak["full batch"] < 1.5 else "outside"
    ratios = [found.with_kinks[arm] / sharp.clamp_min(0.05) for arm, sharp in found.sharpness.items()]
    extra = max(float(ratio[2:].median(2).values.amax()) for ratio in ratios)
    return [
        f"largest median from the third look on, full batch: {inside} 0.8 and 1.5 of the edge",
        f"the same, mini-batch: {'below' if peak['mini-batch'] < 1 else 'at or above'} the edge",
        f"the kinks raise a median sharpness by half or more: {'yes' if extra > 1.5 else 'no'}",
    ]


def _smoothness(found: Smoothness) -> list[str]:
    _, (_, high) = rules.roughness_power(found)
    return [
        f"at the lowest level the roughness falls with the rate: {'yes' if high < 0 else 'not shown'}",
        f"the roughness of s* goes like σ/μ to the power {rules.star_power(found):.1f}",
        f"L6: {rules.l6(found).verdict}",
    ]


def _gaps(found: Gaps) -> list[str]:
    told = []
    for name, (_, (low, _)) in rules.gap_powers(found).items():
        told.append(f"{name:8s} the excess risk grows with the smallest gap: {'yes' if low > 0 else 'not shown'}")
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
    copies, truth = (rules.better(values).mean(1) for values in (found.memorized, found.of_truth))
    fewer = "smaller" if copies[-1] < copies[0] else "not smaller"
    return [
        f"memorized fraction in the largest dimension: {fewer} than in the smallest",
        f"true score learnt in the largest dimension: {'more' if truth[-1] > 0.5 else 'less'} than half",
        f"L4: {rules.l4(found).verdict}",
    ]


def _emm(found: Digits) -> list[str]:
    between = found.rates[0] < rules.peak_rate(found) < found.rates[-1]
    none = rules.mean_sizes(found)[found.rates[-1]] == 0
    told = [
        f"EMM is largest at a rate {'between the ends' if between else 'at an end'}",
        f"at the largest rate {'not even' if none else 'at least'} {found.smallest} images are memorized",
    ]
    by_batch = sorted(
        (one.batch, float(one.sizes[:, 0].mean())) for one in found.brackets if one.rate == found.rates[1]
    )
    if len(by_batch) > 1:
        grows = by_batch == sorted(by_batch, key=lambda pair: pair[1])
        told.append(f"EMM grows with the batch size: {'yes' if grows else 'no'}")
    false, of = found.false_copies
    return [
        *told,
        f"held-out images that the rule would call copies: {false} of {of}",
        f"L7: {rules.l7(found).verdict}",
    ]


def _frontier(found: Digits) -> list[str]:
    ends = {walk.rate: walk.looks.mean(0)[-1] for walk in found.walks if walk.schedule == "constant"}
    copied, _, distance = ends[found.rates[-1]]
    least = copied <= min(end[0] for end in ends.values())
    worst = distance >= max(end[2] for end in ends.values())
    return [
        f"the largest rate copies least at the end: {'yes' if least else 'no'}",
        f"and has the largest Frechet distance: {'yes' if worst else 'no'}",
    ]
