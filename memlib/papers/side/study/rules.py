"""The rules of the claims S1 to S7: from results to verdicts. Each docstring is the rule."""

import torch
from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.metrics import Count
from memlib.papers.side.study.results import Arms, Labels, Results, Thresholds, Weights
from memlib.papers.side.study.training_rules import s8

TOPS = (0.001, 0.005, 0.01, 0.05, 0.1)  # fractions of the most similar samples


def verdicts(results: Results) -> list[Claim]:
    """The claims of the groups that were run, in the order of their ids."""
    found = []
    if results.arms:
        found += [s1(results.arms), s3(results.arms), s4(results.arms)]
    if results.weights:
        found += [s2(results.weights), s7(results.weights)]
    if results.labels:
        found.append(s5(results.labels))
    if results.thresholds:
        found.append(s6(results.thresholds))
    if results.training:
        found.append(s8(results.training))
    return sorted(found, key=lambda claim: claim.id)


def s1(arms: Arms) -> Claim:
    """Reproduced: in every network OL-TD copies more often than Random and more often than OL-TI (AMS), and copies more
    distinct members than Random. Trend only: in every network it copies more often than Random. Else not reproduced.

    Each comparison asks whether the 95 % interval of the difference lies above 0: for AMS the score interval of paired
    proportions, for distinct members that of the samples that alone hit their member. CL-TD is shown and decides
    nothing.
    """
    first = arms.hits[0]
    more, unaided = beats(arms, "OL-TD", "Random"), beats(arms, "CL-TD", "Random")
    distinct = all(metrics.unique_difference(hits["OL-TD"], hits["Random"])[1][0] > 0 for hits in arms.hits)
    whole = more and beats(arms, "OL-TD", "OL-TI") and distinct
    return Claim(
        "S1",
        "reproduced" if whole else "trend only" if more else "not reproduced",
        figure=rates(arms, "Random", "OL-TI", "OL-TD", "CL-TD"),
        interval=paired(first["OL-TD"], first["Random"]),
        n=len(first["Random"]),
        text=f"AMS in the high band, first of {len(arms.hits)} networks; interval of OL-TD less Random; CL-TD, which "
        f"sees no training image, {'beats' if unaided else 'does not beat'} Random",
    )


def s2(weights: Weights) -> Claim:
    """The peak of the sweep is the weight with the largest AMS on samples of even number; it is tested on the others.

    Reproduced: there AMS at the peak lies above AMS at weight 0 and above AMS at the largest weight, both by the 95 %
    interval of paired samples. Trend only: above AMS at weight 0. Else not reproduced.
    """
    peak, odd = peak_of(weights), weights.similarity[:, 1::2] >= weights.high
    rise, fall = (metrics.paired_interval(odd[peak], odd[i]) for i in (0, -1))
    ams = (weights.similarity >= weights.high).double().mean(1)
    return Claim(
        "S2",
        "reproduced" if rise[0] > 0 and fall[0] > 0 else "trend only" if rise[0] > 0 else "not reproduced",
        figure={f"{weight:g}": float(rate) for weight, rate in zip(weights.weights, ams, strict=True)},
        interval=rise,
        n=weights.similarity.shape[1],
        text=f"AMS of {weights.arm} by weight; interval of the peak, found on even samples, less weight 0 on odd ones",
    )


def s3(arms: Arms) -> Claim:
    """Reproduced: in every network OL-TD copies more often than Random and more often than OL-TI (95 % intervals of
    paired samples), and the 95 % interval of OL-TI's AMS over OL-TD's in the first network lies below a third.
    Trend only: the same without the last. Else not reproduced.
    """
    first = arms.hits[0]
    better = beats(arms, "OL-TD", "Random") and beats(arms, "OL-TD", "OL-TI")
    low, high = metrics.paired_interval(first["OL-TI"] >= 0, first["OL-TD"] >= 0, "ratio")
    return Claim(
        "S3",
        "reproduced" if better and high < 1 / 3 else "trend only" if better else "not reproduced",
        figure=rates(arms, "Random", "OL-TI", "OL-TD"),
        n=len(first["Random"]),
        text=f"AMS; without time over with time, 95 % interval [{low:.2f}, {high:.2f}]",
    )


def s4(arms: Arms) -> Claim:
    """Reproduced: in every network OL-TD copies more often than RL-TD (training), by the 95 % interval of paired
    samples. Not reproduced: in every network it copies less often. Else needs data or scale.
    """
    poorer, richer = beats(arms, "OL-TD", "RL-TD (training)"), beats(arms, "RL-TD (training)", "OL-TD")
    text = "AMS; the paper's random labels do better than real ones" if richer else "AMS; real labels, random ones"
    return Claim(
        "S4",
        "reproduced" if poorer else "not reproduced" if richer else "needs data or scale",
        figure=rates(arms, "OL-TD", "RL-TD (training)", "RL-TD", "RL-TD (oracle)"),
        n=len(arms.hits[0]["Random"]),
        text=text,
    )


def s5(labels: Labels) -> Claim:
    """Reproduced: a search finds no training image among the images that any student was shown, except those of the
    oracle's student, which it must find. Else not reproduced.
    """
    others = [shown for arm, shown in labels.shown.items() if arm != "RL-TD (oracle)"]
    return Claim(
        "S5",
        "reproduced" if labels.shown["RL-TD (oracle)"] and not any(others) else "not reproduced",
        figure={arm: float(shown) for arm, shown in labels.shown.items()},
        n=sum(labels.images.values()),
        text="1 where a student was shown a training image; CL-TD's labels come from generated images as well",
    )


def s6(thresholds: Thresholds) -> Claim:
    """With SSCD and its published bands. Reproduced: without an attack, members are copied more often than non-members
    are, in the high band, by the 95 % interval of paired samples. Else not reproduced.

    With another descriptor, whose thresholds are set on the calibration images. Not reproduced: in some band the ratio
    of the fraction of non-members above the threshold to that of the calibration images has a 95 % interval without 1.
    Needs data or scale: there are too few non-members to tell a fraction from its fourfold. Else trend only.
    """
    official, passing = thresholds.descriptor == "sscd", passed(thresholds)
    n = len(thresholds.null)
    set_on = {band: Count(int(fraction * n + 1e-9), n) for band, fraction in thresholds.fractions.items()}
    ratios = [metrics.ratio_interval(passing[band], set_on[band]) for band in passing]
    agrees = all(low <= 1 <= high for low, high in ratios)
    total = thresholds.members
    sharp = all(Count(round(f * total), total).interval()[1] < 4 * f for f in thresholds.fractions.values())
    verdict = "not reproduced" if not agrees else "trend only" if sharp else "needs data or scale"
    if official:
        verdict = "reproduced" if members_more(thresholds) else "not reproduced"
    return Claim(
        "S6",
        verdict,
        figure={band: count.rate for band, count in passing.items()},
        n=total,
        text="fraction of non-members above the published thresholds"
        if official
        else "fraction of non-members above thresholds set on other held-out images for 5, 2 and 1 times fpr; not SSCD",
    )


def s7(weights: Weights) -> Claim:
    """Means of the top 0.1, 0.5, 1, 5 and 10 % of similarities, those that hold ten odd samples or more (else the last
    alone), on samples of odd number, at the peak found as for S2.

    Reproduced: by a bootstrap of 400 resamples (2.5 % quantile above 0), all lie above those at weight 0 and above
    those at the largest weight. Trend only: all lie above those at weight 0. Else not reproduced.
    """
    peak, n = peak_of(weights), weights.similarity.shape[1]
    tops = tops_of(n)
    means = [resampled_tops(weights.similarity[i][1::2], tops) for i in (0, peak, -1)]
    up, down = ((means[1] - means[i]).quantile(0.025, 0) > 0 for i in (0, 2))
    return Claim(
        "S7",
        "reproduced" if up.all() and down.all() else "trend only" if up.all() else "not reproduced",
        figure=[float(mean) for mean in metrics.top_means(weights.similarity[peak])],
        n=n,
        text=f"means of the top 0.1, 0.5, 1, 5, 10 % of {weights.arm} at the peak; of the {len(tops)} with ten samples "
        f"or more, {int(up.sum())} lie above weight 0 and {int(down.sum())} above the largest weight, by the bootstrap",
    )


def tops_of(n: int) -> tuple[float, ...]:
    """The top fractions of which half of n samples hold ten or more; the largest where none does."""
    return tuple(one for one in TOPS if one * n >= 20) or TOPS[-1:]


def resampled_tops(similarity: Tensor, tops: tuple[float, ...]) -> Tensor:
    """Means of the top fractions in 400 bootstrap resamples of similarities (N,), (400, T)."""
    n = len(similarity)
    again = torch.randint(n, (400, n), generator=torch.Generator().manual_seed(0))
    return torch.stack([metrics.top_means(one, tops) for one in similarity[again]])


def rates(arms: Arms, *names: str) -> dict[str, float]:
    """The fraction of samples that copy a member in the first network, by arm."""
    return {name: float((arms.hits[0][name] >= 0).double().mean()) for name in names}


def paired(first: Tensor, second: Tensor) -> tuple[float, float]:
    """The 95 % interval of the difference in AMS of two arms' hits, (N,) each."""
    return metrics.paired_interval(first >= 0, second >= 0)


def beats(arms: Arms, first: str, second: str) -> bool:
    """Whether arm `first` copies more often than `second` in every network, by the paired 95 % interval."""
    return min(paired(hits[first], hits[second])[0] for hits in arms.hits) > 0


def peak_of(weights: Weights) -> int:
    """The number of the weight with the largest AMS on samples of even number, so that the choice flatters no test."""
    even = [(one[::2] >= weights.high).double().mean() for one in weights.similarity]
    return int(torch.stack(even).argmax())


def passed(thresholds: Thresholds) -> dict[str, Count]:
    """How many non-members lie above the edge of each band."""
    check = thresholds.check
    return {band: Count(int((check >= edge).sum()), len(check)) for band, edge in thresholds.edges.items()}


def members_more(thresholds: Thresholds) -> bool:
    """Whether unguided samples copy members more often than non-members, by the paired 95 % interval."""
    copied = thresholds.copied, thresholds.copied_non_members
    return metrics.paired_interval(*copied)[0] > 0
