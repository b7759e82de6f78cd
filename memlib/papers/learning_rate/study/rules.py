"""What counts as reproduced: one function a claim, whose docstring is the rule.

Intervals are at 95 %, by Student's t over runs unless a rule says otherwise, and every difference is paired by run. A
power is the least-squares slope of logarithms within a run. `digits_rules` decides L7.
"""

import math

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.learning_rate.study.measures import (
    agreeing,
    at_edge,
    gap_rises,
    irreversible,
    kept,
    remembered,
    reversible,
    roughness_power,
    settled,
    star_power,
)
from memlib.papers.learning_rate.study.results import Dimensions, Edge, Gaps, Memory, Smoothness, Theorem


def l1(results: Memory) -> Claim:
    r"""Networks are brought from $10^{-6}$ to a rate and held there. Then one copy stays at the rate and another is
    annealed to $10^{-6}$, on the same batches. The *reversible* effect of a rate is the difference between the copies;
    what annealing does not undo (against the smallest rate, annealed) is reported apart. *Reproduced*: at
    $\eta = 10^{-4}$ the excess risk is larger at the rate than annealed, in mini-batches and with the full batch, and
    the memorized fraction of samples is smaller (three intervals above 0). *Trend only*: the excess risk alone. *Not
    reproduced*: otherwise. *Needs data or scale*: annealed, networks of the smallest rate are nearer to the zero
    function than to $s^*$. A diverged network counts as the zero function.
    """
    e = results.rates.index(results.decisive)
    effect = {arm: reversible(results, arm)[e] for arm in ("mini-batch", "full batch")}
    risk = all(metrics.mean_interval(values)[0] > 0 for values in effect.values())
    back = metrics.mean_interval(remembered(results)[e], bounds=(-1, 1))
    learnt = bool(results.excess["mini-batch"][2, 0].mean() < 0.5 * results.silent)
    verdict = "reproduced" if risk and back[0] > 0 else "trend only" if risk else "not reproduced"
    mini = results.excess["mini-batch"][:, e].mean(1)
    return Claim(
        "L1",
        verdict if learnt else "needs data or scale",
        figure={
            "memorized at 1e-4": results.fraction[0, e].mean(),
            "annealed": results.fraction[1, e].mean(),
            "excess/R(0) at 1e-4": mini[1],
            "excess annealed": mini[2],
            "not undone": irreversible(results, "mini-batch")[e].mean(),
            "units left": results.inside["mini-batch"][1, e].mean(),
        },
        interval=back,
        n=results.fraction.shape[2],
        text="memorized fraction after annealing minus at a rate of 1e-4, copies of one network on the same batches",
    )


def l2(results: Theorem) -> Claim:
    r"""Every network has its own threshold, by its points and its noise level. *Trend only*: the excess risk over
    $\mathcal R_n(0)$, averaged over five noise levels, is larger at twice the threshold than at a millionth of it
    (interval of the difference above 0), and no network at twice its threshold lies above the ceiling 1. *Not
    reproduced*: otherwise. It is never called reproduced, because the slides do not give $C$; the powers of $\sigma$,
    $n$, $\Delta$ and $A$ are described and decide nothing.
    """
    above = metrics.mean_interval((results.relative[-1] - results.relative[0]).mean(1))
    below_ceiling = bool((results.relative[-1] <= 1).all())
    return Claim(
        "L2",
        "trend only" if above[0] > 0 and below_ceiling else "not reproduced",
        figure={
            "smallest threshold on eta": results.threshold.min(),
            "largest": results.threshold.max(),
            "excess/R(0) at twice the threshold": results.relative[-1].mean(),
            "at a millionth": results.relative[0].mean(),
        },
        interval=above,
        n=results.relative.shape[1],
        text="excess/R(0) at twice each network's threshold minus at a millionth; without C its size is not tested",
    )


def l3(results: Edge) -> Claim:
    r"""Full-batch descent starts at a minimum that memorizes and takes a hundred steps at multiples of the edge
    $2/(m\lambda_{\max})$. It has *left* if its excess risk is up by half at any look. A run *agrees* if it leaves at no
    multiple up to 0.9 and at every one from 1.1. *Reproduced*: the exact interval of the fraction of runs that agree
    lies above 1/2, and the sharpness to which full-batch training settles lies within a factor of 1.5 of the edge
    (interval over runs of the mean logarithm at the rates 0.1 and 0.2, last three looks). *Trend only*: the first
    alone. *Not reproduced*: otherwise. *Needs data or scale*: at the minima more than half of $s^*$ is missing.
    """
    count = agreeing(results)
    interval = settled(results, "full batch")[1]
    verdict = "not reproduced" if count.interval()[0] <= 0.5 else "reproduced" if at_edge(interval) else "trend only"
    leaving = results.leaving
    return Claim(
        "L3",
        verdict if leaving.missing.mean() < 0.5 else "needs data or scale",
        figure={
            "runs that agree": count.rate,
            "sharpness settles at": settled(results, "full batch")[0],
            "gradient at the minima over the start": leaving.gradient.median(),
            "s* missing there": leaving.missing.mean(),
        },
        interval=count.interval(),
        n=count.n,
        text="fraction of runs that stay at a minimum up to 0.9 and leave from 1.1 times 2/(m lambda), full batch",
    )


def l3b(results: Edge) -> Claim:
    r"""Adam, full batch: the sharpness in Adam's own coordinates, in units of $38/\eta$. *Reproduced*: it settles
    within a factor of 1.5 of 1, measured as in L3 at the rates 0.3 and 1 (interval over runs). *Trend only*: the
    interval overlaps that band. *Not reproduced*: otherwise.
    """
    mean, (low, high) = settled(results, "Adam, full batch")
    verdict = "reproduced" if at_edge((low, high)) else "trend only" if low < 1.5 and high > 1 / 1.5 else ""
    return Claim(
        "L3b",
        verdict or "not reproduced",
        figure=mean,
        interval=(low, high),
        n=results.sharpness["Adam, full batch"].shape[2],
        text="where Adam's preconditioned sharpness settles, in units of 38/eta",
    )


def l4(results: Dimensions) -> Claim:
    r"""One arm for all curves: memorized samples over those that samples of $s^*$ itself would give, by dimension.
    *Reproduced*: this fraction is larger in the smallest dimension than in the largest (interval of the difference
    above 0), and in the largest the true score is learnt to more than half. *Trend only*: the first alone. *Not
    reproduced*: otherwise. *Needs data or scale*: in the largest dimension the network learns neither $s^*$ nor the
    true score to more than half.
    """
    shares = results.memorized / results.exact.clamp_min(0.01)
    fewer = metrics.mean_interval(shares[0] - shares[-1])
    star, truth = (float(part[-1].mean()) for part in (results.of_optimum, results.of_truth))
    verdict = "not reproduced" if fewer[0] <= 0 else "reproduced" if truth > 0.5 else "trend only"
    copies = zip(results.dims, results.memorized.mean(1), strict=True)
    return Claim(
        "L4",
        verdict if max(star, truth) > 0.5 else "needs data or scale",
        figure={f"memorized, d = {d}": copy for d, copy in copies}
        | {"s* learnt, largest d": star, "true score": truth, "control": results.control[-1].mean()},
        interval=fewer,
        n=shares.shape[1],
        text="memorized fraction over that of s* in the smallest minus the largest dimension, one arm",
    )


def l5(results: Gaps) -> Claim:
    r"""The fraction of $s^*$ that is missing at $\eta = 3\times10^{-4}$ (the excess risk over that of the zero
    function, which grows with the spacing by itself), less what is missing at the smallest rate, annealed: what the
    rate adds. *Reproduced*: it grows with the smallest gap $\Delta$ (interval of its slope over $\log\Delta$ above 0)
    where all points are pulled apart and where two pairs are opened. *Trend only*: in one of the two. *Not reproduced*:
    otherwise.
    """
    rises = gap_rises(results)
    grows = sum(low > 0 for _, (low, _) in rises.values())
    return Claim(
        "L5",
        ("not reproduced", "trend only", "reproduced")[grows],
        figure={f"per doubling of Delta, {name}": mean for name, (mean, _) in rises.items()}
        | {f"pairs, {end}": x for end, x in zip(("low", "high"), rises["pairs"][1], strict=True) if math.isfinite(x)},
        interval=rises["spacing"][1],
        n=results.missing["spacing"].shape[1],
        text="what a rate of 3e-4 adds to the missing fraction of s* per doubling of the gap: spacing, or pairs opened",
    )


def l6(results: Smoothness) -> Claim:
    r"""Roughness is the total variation of a score's slope between the outermost training points, here over that of the
    initial network, at the lowest noise level. *Reproduced*: the power of $\eta$ in it lies below 0 (interval) over the
    rates at which nine units in ten are left, so that no loss of units can explain it; and the power of $\sigma/\mu$ in
    the roughness of $s^*$, from 0.2 to 0.1, lies below $-3$ (arithmetic, without chance). *Trend only*: over all rates
    alone. *Not reproduced*: otherwise. *Needs data or scale*: fewer than three rates leave nine units in ten. Flat
    networks, without a kink between the points, have no logarithm: they are counted and left out, and a run with fewer
    than three others has the power 0.
    """
    at, star = kept(results), star_power(results)
    everywhere = roughness_power(results, list(range(len(results.rates))))
    if len(at) < 3:
        verdict, (mean, interval) = "needs data or scale", everywhere
    else:
        mean, interval = roughness_power(results, at)
        calm, falls = interval[1] < 0 and star < -3, everywhere[1][1] < 0
        verdict = "reproduced" if calm else "trend only" if falls else "not reproduced"
    initial, here, after = results.rough[:, at[-1] if at else -1, :, -1].mean(1)
    return Claim(
        "L6",
        verdict,
        figure={
            "roughness ~ eta^": mean,
            "over all rates": everywhere[0],
            "roughness of s* ~ (sigma/mu)^": star,
            "over s*, initial": initial,
            "at the largest such rate": here,
            "annealed": after,
        },
        interval=interval,
        n=results.rough.shape[2],
        text="power of eta in the total variation of the learnt slope over the initial one, rates that keep units",
    )
