"""When a claim counts as reproduced: pure functions of the results. The protocol page quotes their docstrings.

Intervals are of 95 %. Where pipelines judge images, both vary: intervals run over pairs of pipelines and over images
(`membership.crossed_interval`). A claim that was measured on several sources gets the weakest of their verdicts.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from scipy.stats import chi2
from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.synthesis.pool import MISLABELLED, REPEATED
from memlib.papers.synthesis.study.fine_tuning_rules import r2, r6
from memlib.papers.synthesis.study.measures import accuracy_by_pair, difference, share
from memlib.papers.synthesis.study.results import Membership, Results, Retrieval, Seeds, Sizes
from memlib.papers.synthesis.study.theory_rules import r1, r3, r9, r13
from memlib.papers.synthesis.study.usefulness_rules import r8, r11, r12

CLOSE = 0.03  # accuracies that differ by less are close: 3 points
ON_AVERAGE, ON_CANARIES = 2.0, 5.0  # times the false-positive rate: what a training that protects may lose
PLANTED = 0.9  # fraction of planted copies that a search must find
ABOVE_HALF = 0.05  # excess of images nearer to a member that is called none
POINT = 0.01  # one point of accuracy

_ORDER = ("reproduced", "trend only", "needs data or scale", "not reproduced")
Part = TypeVar("Part")


def verdicts(results: Results) -> list[Claim]:
    """The verdict on each claim of the groups that were run, in the order of the claims' ids."""
    measured: list[tuple[Mapping[str, Any] | None, tuple[Callable[..., Claim], ...]]] = [
        (results.kernel, (r1,)),
        (results.fine_tuning, (r2,)),
        (results.gap, (r3,)),
        (results.membership, (r4, r4b)),
        (results.copies, (r5,)),
        (results.ablation, (r6,)),
        (results.seeds, (r7,)),
        ({"faces": results.attributes} if results.attributes else None, (r8,)),
        (results.settings, (r9,)),
        (results.sizes, (r10,)),
        (results.utility, (r11, r12)),
        (results.bound, (r13,)),
    ]
    return [over(parts, rule) for parts, rules in measured if parts for rule in rules]


def over(parts: Mapping[str, Part], rule: Callable[[Part], Claim]) -> Claim:
    """The claim of one source, or that of several: the weakest verdict, with the figures of each."""
    claims = {name: rule(part) for name, part in parts.items()}
    if len(claims) == 1:
        return next(iter(claims.values()))
    weakest = max(claims.values(), key=lambda claim: _ORDER.index(claim.verdict))
    figure = {f"{name}: {key}": value for name, one in claims.items() for key, value in one.figure.items()}
    said = "; ".join(f"{name}: {claim.verdict}" for name, claim in claims.items())
    return Claim(weakest.id, weakest.verdict, figure, weakest.n, weakest.interval, f"{weakest.text} ({said})")


def r4(found: Membership) -> Claim:
    """R4, a classifier trained on synthetic data protects the members (the paper's reading: threat A alone).

    LiRA, online, with one deviation, at a false-positive rate of 1 %. *Needs data or scale* unless it finds members of
    the classifiers trained on real data (interval above the rate) and the accuracies of real and synthetic training
    differ by at most 3 points. *Reproduced* if it finds fewer with synthetic training (interval of the paired
    difference below 0), and no more than twice the rate on average (upper end) and five times the rate among
    mislabelled and among repeated images, each apart (upper ends). *Trend only* if it finds fewer. Otherwise *not
    reproduced*.
    """
    hits = found.hits
    on_real, (low, _) = share(hits.real, hits.inside)
    on_synthetic, (_, high) = share(hits.synthetic, hits.inside)
    apart, interval = difference(hits.synthetic, hits.real, hits.inside)
    canaries = {
        name: share(hits.synthetic, hits.inside & (hits.kind == kind))
        for name, kind in (("mislabelled", MISLABELLED), ("repeated", REPEATED))
    }
    gap = accuracy_by_pair(found.right["real"]) - accuracy_by_pair(found.right["synthetic"])
    if low <= hits.rate or abs(float(gap.mean())) > CLOSE:
        verdict = "needs data or scale"
    elif interval[1] >= 0:
        verdict = "not reproduced"
    elif high <= ON_AVERAGE * hits.rate and all(ends[1] <= ON_CANARIES * hits.rate for _, ends in canaries.values()):
        verdict = "reproduced"
    else:
        verdict = "trend only"
    figure = {"real": on_real, "synthetic": on_synthetic}
    figure |= {f"synthetic, {name}": rate for name, (rate, _) in canaries.items()}
    figure |= {"accuracy lost": float(gap.mean())}
    return Claim(
        "R4", verdict, figure, len(hits.inside) // 2, interval, "members found at 1 %; interval of synthetic minus real"
    )


def r4b(found: Membership) -> Claim:
    """R4b, at equal utility: synthetic training finds fewer members than real training that was stopped early.

    Real training is stopped at the first look whose mean accuracy reaches that of the synthetic set. The look is chosen
    by accuracy alone. *Reproduced* if LiRA finds fewer members with synthetic training than there (interval of the
    paired difference below 0), *not reproduced* if it finds more, else *needs data or scale*; the gate on real training
    is that of R4.
    """
    hits = found.hits
    _, (low, _) = share(hits.real, hits.inside)
    apart, interval = difference(hits.synthetic, hits.equal, hits.inside)
    stopped, _ = share(hits.equal, hits.inside)
    verdict = "needs data or scale"
    if low > hits.rate and not interval[0] <= 0 <= interval[1]:
        verdict = "reproduced" if interval[1] < 0 else "not reproduced"
    figure = {"real, stopped": stopped, "synthetic minus that": apart}
    return Claim(
        "R4b", verdict, figure, len(hits.inside) // 2, interval, "members found at 1 %, at equal accuracy; ours"
    )


def r5(found: Retrieval) -> Claim:
    """R5, retrieval by a copy descriptor shows no copies among the published images.

    *Needs data or scale* unless the search finds 90 % of planted copies (slightly noisy members). *Not reproduced* if
    more published images are nearer to a member than to a non-member (interval of the fraction over pairs above one
    half), or more pass for copies of members than of non-members. *Reproduced* if neither, and the interval of the
    fraction ends below .55. Otherwise *needs data or scale*.
    """
    nearer = _by_pair(found.nearer)
    interval = metrics.mean_interval(nearer, bounds=(0, 1))
    beyond = metrics.mean_interval(_by_pair(found.of_members - found.of_ghosts), bounds=(-1, 1))
    if float(found.planted.mean()) < PLANTED:
        verdict = "needs data or scale"
    elif interval[0] > 0.5 or beyond[0] > 0:
        verdict = "not reproduced"
    elif interval[1] <= 0.5 + ABOVE_HALF:
        verdict = "reproduced"
    else:
        verdict = "needs data or scale"
    names = ("nearer to a member", "copies of members", "copies of non-members", "planted copies found")
    values = (found.nearer, found.of_members, found.of_ghosts, found.planted)
    figure = {name: float(value.mean()) for name, value in zip(names, values, strict=True)}
    return Claim(
        "R5", verdict, figure, len(nearer), interval, "published images nearer to a member than to any non-member"
    )


def r7(found: Seeds) -> Claim:
    """R7, repetitions with other seeds agree: the paper's largest deviation is .29 points, over three seeds.

    The deviation of the accuracy of one pipeline over its seeds, with the interval of a normal law's (chi-square).
    *Reproduced* if its upper end is at most one point, *not reproduced* if its lower end is above, else *needs data or
    scale*. The paper's is the population deviation; the interval is that of the sample deviation, which counts as half
    a test image at least: smaller ones are rounding.
    """
    count = len(found.repeated)
    deviation = max(float(found.repeated.std()), 0.5 / found.test)
    degrees = count - 1
    ends = tuple(deviation * math.sqrt(degrees / float(chi2.ppf(tail, degrees))) for tail in (0.975, 0.025))
    low, high = ends
    verdict = "reproduced" if high <= POINT else "not reproduced" if low > POINT else "needs data or scale"
    three = found.repeated[:3]
    figure = {
        "mean of three": float(three.mean()),
        "population deviation of three": float(three.std(correction=0)),
        "sample deviation": deviation,
        "deviation of all pipelines": float(found.pipelines.std()),
    }
    return Claim("R7", verdict, figure, count, (low, high), "accuracy over seeds; interval of the sample deviation")


def r10(found: Sizes) -> Claim:
    """R10, synthetic data alone train a classifier, and more of them a better one.

    Accuracy at the largest size less that at equal size, paired over pipelines and test images, at equal steps.
    *Reproduced* if its interval is above 0 and equal size loses at most ten points against real data (interval).
    *Trend only* if only the first. *Not reproduced* if the interval ends below one point of gain. Else *needs data or
    scale*.
    """
    sizes = sorted(found.right)
    least, most = found.right[sizes[0]], found.right[sizes[-1]]
    everywhere = torch.ones_like(least)
    gain, interval = difference(most, least, everywhere)
    lost, (_, worst) = difference(found.real, least, everywhere)
    if interval[0] > 0:
        verdict = "reproduced" if worst <= 0.10 else "trend only"
    else:
        verdict = "not reproduced" if interval[1] < POINT else "needs data or scale"
    figure = {f"gain at {sizes[-1]} times": gain, "lost at equal size": lost}
    figure |= {f"members found at {size}": found.rates[size]["all"].tpr for size in sizes}
    return Claim("R10", verdict, figure, len(least) // 2, interval, "accuracy gained by more synthetic data")


def _by_pair(values: Tensor) -> Tensor:
    """(T,) -> (P,)."""
    return values.double().view(-1, 2).mean(1)
