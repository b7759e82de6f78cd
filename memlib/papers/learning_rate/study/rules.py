"""What counts as reproduced: one function a claim, whose docstring is the rule.

Intervals are at 95 %, by Student's t over runs unless a rule says otherwise. A power of eta (or of a gap) is the
least-squares slope of logarithms within a run.
"""

import torch
from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.learning_rate.study.results import (
    Bracket,
    Digits,
    Dimensions,
    Edge,
    Gaps,
    Memory,
    Smoothness,
    Theorem,
)

_FLAT = 1e-6  # roughness at which a flat network enters a power


def l1(results: Memory) -> Claim:
    r"""*Reproduced*: the memorized fraction at the two smallest rates exceeds that at the two largest (interval of the
    difference, paired by run, above 0), and the excess risk at the lowest noise level grows with the rate in three
    comparisons: mini-batch at equal steps, full batch at equal steps, and mini-batch at equal $\eta\times$ steps
    (intervals of the power of $\eta$ above 0). *Trend only*: the memorized fraction alone. *Not reproduced*:
    otherwise. A diverged network counts as the zero function.
    """
    fewer = metrics.mean_interval(results.fraction[:2].mean(0) - results.fraction[-2:].mean(0), bounds=(-1, 1))
    grows = all(low > 0 for _, (low, _) in risk_powers(results).values())
    return Claim(
        "L1",
        "reproduced" if grows and fewer[0] > 0 else "trend only" if fewer[0] > 0 else "not reproduced",
        figure={
            "memorized fraction, two smallest eta": results.fraction[:2].mean(),
            "two largest": results.fraction[-2:].mean(),
            "s*": results.exact.mean(),
        },
        interval=fewer,
        n=results.fraction.shape[1],
        text="memorized fraction at the two smallest minus the two largest rates, paired by run",
    )


def l2(results: Theorem) -> Claim:
    r"""*Trend only*: the excess risk over $\mathcal R_n(0)$, averaged over five noise levels, is larger above the
    threshold (at twice its largest value) than at the smallest rate (interval of the difference, paired by run, above
    0), and no network lies above the ceiling 1. *Not reproduced*: otherwise. It is never called reproduced, because the
    slides do not give $C$; the powers of $\sigma$, $n$, $\Delta$ and $A$ are described and decide nothing. Known
    weakness: the threshold is that of the lowest noise level of the main sweep, and at the two highest of the five
    levels the theorem asks for a larger rate.
    """
    above = metrics.mean_interval((results.relative[2] - results.relative[0]).mean(1))
    below_ceiling = bool((results.relative[2] <= 1).all())
    return Claim(
        "L2",
        "trend only" if above[0] > 0 and below_ceiling else "not reproduced",
        figure={
            "threshold on eta": results.rates[2] / 2,
            "excess/R(0) above it": results.relative[2].mean(),
            "at the smallest rate": results.relative[0].mean(),
        },
        interval=above,
        n=results.relative.shape[1],
        text="excess/R(0) above the threshold minus at the smallest rate; without C its size is not tested",
    )


def l3(results: Edge) -> Claim:
    r"""Full-batch descent starts at a minimum that memorizes and takes a hundred steps at a multiple of the edge
    $2/(m\lambda_{\max})$. A network has *left* if its excess risk is up by half at any look. *Reproduced*: the exact
    intervals of the fraction that leaves at 0.9 of the edge or less and at 1.1 or more are disjoint in the right order,
    and the largest median sharpness in training, from the third look (step 100) on, lies between 0.8 and 1.5 of the
    edge. *Trend only*: the first alone. *Not reproduced*: otherwise. Known weakness: several multiples of one network
    count as several networks, which makes the intervals too narrow, and networks that leave at steps scattered widely
    about the edge can pass too, since larger steps always leave more often.
    """
    below, above = left_of_edge(results)
    apart = above.interval()[0] > below.interval()[1]
    at_edge = bool(0.8 < peak(results)["full batch"] < 1.5)
    return Claim(
        "L3",
        "reproduced" if apart and at_edge else "trend only" if apart else "not reproduced",
        figure={"left below the edge": below.rate, "left above": above.rate},
        interval=above.interval(),
        n=above.n,
        text="full batch: fraction of memorizing minima left at up to 0.9 and from 1.1 times 2/(m lambda)",
    )


def l4(results: Dimensions) -> Claim:
    r"""Each dimension is given the better of two arms: large initial weights at a small rate, or small ones at a large
    rate. *Reproduced*: the memorized fraction in the smallest dimension exceeds that in the largest (interval of the
    difference, paired by run, above 0), and in the largest the true score is still learnt to more than half. *Trend
    only*: the first alone. *Not reproduced*: otherwise.
    """
    memorized, truth = better(results.memorized), better(results.of_truth)
    fewer = metrics.mean_interval(memorized[0] - memorized[-1])
    apt = bool(truth[-1].mean().clamp_min(0) > 0.5)
    copies = memorized.mean(1).clamp_min(0)
    return Claim(
        "L4",
        "not reproduced" if fewer[0] <= 0 else "reproduced" if apt else "trend only",
        figure={f"memorized, d = {d}": copy for d, copy in zip(results.dims, copies, strict=True)},
        interval=fewer,
        n=memorized.shape[1],
        text="memorized fraction in the smallest minus the largest dimension, each in the better of two arms",
    )


def l5(results: Gaps) -> Claim:
    r"""The power of the smallest gap $\Delta$ in the excess risk at $\eta = 10^{-3}$. *Reproduced*: its interval lies
    above 0 where all points are pulled apart and where two pairs are opened. *Trend only*: for points pulled apart
    alone. *Not reproduced*: otherwise. Known weakness: much of the growth with the spacing is that of $s^*$ itself, and
    a network that learnt nothing shows it too.
    """
    growth = gap_powers(results)
    grows = {name: low > 0 for name, (_, (low, _)) in growth.items()}
    return Claim(
        "L5",
        "reproduced" if all(grows.values()) else "trend only" if grows["spacing"] else "not reproduced",
        figure={f"power of Delta, {name}": mean for name, (mean, _) in growth.items()},
        interval=growth["spacing"][1],
        n=results.spacing.excess.shape[2],
        text="power of the smallest gap in the excess risk at eta = 1e-3: all pulled apart, or pairs opened",
    )


def l6(results: Smoothness) -> Claim:
    r"""Roughness is the total variation of a score's slope between the outermost training points. *Reproduced*: the
    power of $\eta$ in the roughness of the learnt score at the lowest noise level lies below 0 (its interval), and
    that of $\sigma/\mu$ in the roughness of $s^*$, from 0.2 to 0.1, below $-3$ (arithmetic, without chance). *Trend
    only*: the mean power of $\eta$ is below 0. *Not reproduced*: otherwise. A flat network counts with a roughness of
    $10^{-6}$. Known weakness: *trend only* looks at a sign, so it comes in about half of the runs in which the rate has
    no effect.
    """
    mean, interval = roughness_power(results)
    star = star_power(results)
    return Claim(
        "L6",
        "reproduced" if interval[1] < 0 and star < -3 else "trend only" if mean < 0 else "not reproduced",
        figure={"roughness ~ eta^": mean, "roughness of s* ~ (sigma/mu)^": star},
        interval=interval,
        n=results.rough.shape[1],
        text="power of eta in the total variation of the learnt slope at the lowest level, over runs",
    )


def l7(results: Digits) -> Claim:
    r"""Effective model memorization (EMM) on digits, at the rate where its mean is largest and at the largest rate, by
    model. *Reproduced*: larger at the former in all models. *Trend only*: in some. *Not reproduced*: in none. *Needs
    data or scale*: one model. Quality is shown next to it and decides nothing. Known weakness: the best of several
    rates is chosen on the same models that judge it, so with two models the rule says reproduced in about 42 % of runs
    in which the rate has no effect.
    """
    sizes = mean_sizes(results)
    best, last = (of_rate(results, rate) for rate in (peak_rate(results), results.rates[-1]))
    fell = best.sizes[:, 0] > last.sizes[:, 0]
    verdict = "reproduced" if fell.all() else "trend only" if fell.any() else "not reproduced"
    ends = costs(results)
    return Claim(
        "L7",
        verdict if len(fell) > 1 else "needs data or scale",
        figure={f"EMM, eta = {rate}": size for rate, size in sizes.items()}
        | {"Frechet, largest eta / best early look": ends["largest rate"] / ends["best early look"]},
        n=len(fell),
        text="largest digits set with 90 % of samples memorized, by Adam's rate; an extension of this book",
    )


# What the rules rest on; the chapter prints these too.


def power(values: Tensor, over: list[float] | Tensor) -> tuple[float, tuple[float, float]]:
    """Power of `over` (A,) in each run of values (A, R), by least squares on logarithms: mean and interval."""
    a = torch.log10(torch.as_tensor(over).double())
    b = torch.log10(values.double())
    powers = ((a - a.mean())[:, None] * (b - b.mean(0))).sum(0) / (a - a.mean()).square().sum()
    return float(powers.mean()), metrics.mean_interval(powers)


def risk_powers(results: Memory) -> dict[str, tuple[float, tuple[float, float]]]:
    """The power of eta in the excess risk at the lowest level, in three comparisons."""
    return {
        "mini-batch, equal steps": power(results.excess, results.rates),
        "full batch, equal steps": power(results.full_batch, results.rates),
        "mini-batch, equal eta x steps": power(results.timed, results.timed_rates),
    }


def left_of_edge(results: Edge, arm: str = "full batch") -> tuple[metrics.Count, metrics.Count]:
    """How many left their minimum below the edge and above it, pooled over multiples and runs."""
    left = results.rise[arm] > 1.5
    below = torch.tensor(results.rho) < 1
    parts = (left[below], left[~below])
    return tuple(metrics.Count(int(part.sum()), part.numel()) for part in parts)  # type: ignore[return-value]


def peak(results: Edge) -> dict[str, Tensor]:
    """The largest median sharpness over runs from the third look on, in units of the edge: a scalar for each arm."""
    return {name: sharp[2:].median(2).values.amax() for name, sharp in results.sharpness.items()}


def better(values: Tensor) -> Tensor:
    """Of each dimension the arm with the larger mean over runs, (D, A, R) -> (D, R) for D dimensions and A arms."""
    return torch.stack([one[one.mean(1).argmax()] for one in values])


def gap_powers(results: Gaps) -> dict[str, tuple[float, tuple[float, float]]]:
    """The power of the smallest gap in the excess risk at eta = 1e-3."""
    parts = {"spacing": results.spacing, "pairs": results.pairs}
    return {name: power(part.excess[0], part.values) for name, part in parts.items()}


def own_gap_power(results: Gaps) -> tuple[float, tuple[float, float]]:
    """The power of the spacing at eta = 1e-3 relative to a rate above the threshold, where the network is silent."""
    return power(results.spacing.excess[0] / results.spacing.excess[1], results.spacing.values)


def factors(results: Theorem) -> dict[str, tuple[int, Tensor, Tensor | list[float]]]:
    """By factor: its power in the theorem's bound, the excess risk at 1e-3 and above the threshold (2, values, R), and
    the values. sigma varies with A sigma^2 fixed, so that A^-4 sigma^-4 is sigma^4."""
    levels = torch.tensor(results.levels)
    sigmas = (levels / (1 + levels**2).sqrt()).double()
    stated = {"n": 5, "Delta": 3, "A": -4}
    found: dict[str, tuple[int, Tensor, Tensor | list[float]]] = {
        "sigma": (4, results.relative[1:].transpose(1, 2) / sigmas[:, None] ** 2, sigmas)
    }
    for name, one in results.factors.items():
        found[name] = (stated[name], one.excess, one.values)
    return found


def roughness_power(results: Smoothness) -> tuple[float, tuple[float, float]]:
    """The power of eta in the roughness at the lowest level."""
    return power(results.rough[:, :, -1].clamp_min(_FLAT), results.rates)


def flat(results: Smoothness) -> Tensor:
    """Fraction of runs whose score is flat at the lowest level, (E,)."""
    return (results.rough[:, :, -1] < _FLAT).double().mean(1)


def star_power(results: Smoothness) -> float:
    """The power of sigma / mu in the roughness of s*, between the two lowest levels measured."""
    return float(torch.log2(torch.tensor(results.star[-2]) / results.star[-1]))


def of_rate(results: Digits, rate: float) -> Bracket:
    """The bracket of a rate, at the batch size of the comparison."""
    return next(one for one in results.brackets if one.rate == rate and one.batch == results.batch)


def mean_sizes(results: Digits) -> dict[float, Tensor]:
    """EMM by rate, a mean over models, (A,)."""
    return {rate: of_rate(results, rate).sizes[:, 0].mean() for rate in results.rates}


def peak_rate(results: Digits) -> float:
    """The rate with the largest mean EMM."""
    sizes = mean_sizes(results)
    return max(sizes, key=sizes.get)  # type: ignore[arg-type]


def costs(results: Digits) -> dict[str, Tensor]:
    """Squared Frechet distance at the largest rate's end, and the best of early looks at other rates: each a scalar.

    An early look copies one image in twenty at most, or as few as any look does.
    """
    constant = {walk.rate: walk.looks.mean(0) for walk in results.walks if walk.schedule == "constant"}
    looked = torch.cat([constant[rate] for rate in results.rates[:-1]])
    calm = looked[looked[:, 0] <= max(0.05, float(looked[:, 0].min()))]
    return {"largest rate": constant[results.rates[-1]][-1, 2], "best early look": calm[:, 2].min()}
