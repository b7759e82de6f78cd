"""The rules of the claims of SIDE, and of G3: from results to verdicts. Each docstring is the rule.

The unit is the network: a deal of the images, a model trained on its members, thresholds set on its calibration images.
A difference counts if the 95 % interval of its mean over the networks (Student's t) lies on one side of 0.
"""

import torch

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.side.study.arms import TOPS
from memlib.papers.side.study.compare import gains
from memlib.papers.side.study.results import Arms, Labels, Results, Theory, Thresholds, Weights
from memlib.papers.side.study.training_rules import s8

FEWEST = 3  # networks that a verdict needs
PAPERS_SIZE = 10_000  # members from which on one label an image is what the paper's 25,000 labels were


def verdicts(results: Results) -> list[Claim]:
    """The claims of the groups that were run, in the order of their ids."""
    found = []
    if results.arms:
        found += [rule(results.arms) for rule in (s1, s1a, s3, s3a, s3b, s4)]
    if results.second:
        found.append(s1b(results.second))
    if results.weights:
        found += [s2(results.weights), s7(results.weights)]
    if results.labels:
        found.append(s5(results.labels))
    if results.thresholds:
        found.append(s6(results.thresholds))
    if results.theory:
        found.append(g3(results.theory))
    if results.training:
        found.append(s8(results.training))
    return sorted(found, key=lambda claim: claim.id)


def s1(arms: Arms) -> Claim:
    """Reproduced: OL-TD, the paper's method, copies more often than unguided sampling (AMS) and copies more distinct
    members, at equal numbers of samples. Trend only: it copies more often. Needs data or scale: fewer than three
    networks. Else not reproduced.
    """
    return _beats("S1", arms, "OL-TD")


def s1a(arms: Arms) -> Claim:
    """As S1, for the attacker with nothing but the model: CL-TD own. Reproduced: it copies more often than unguided
    sampling, copies more distinct members, and copies more often than RL-TD own, whose labels are chance. Trend only:
    it copies more often than unguided sampling. Needs data or scale: fewer than three networks. Else not reproduced.
    """
    return _beats("S1a", arms, "CL-TD own", control="RL-TD own")


def s1b(arms: Arms) -> Claim:
    """S1a on a second set of images, with the same settings and the same rule. Reproduced: more copies than unguided
    sampling and than RL-TD own, and more distinct members than unguided sampling. Trend only: more copies than unguided
    sampling. Needs data or scale: fewer than three networks. Else not reproduced.
    """
    return _beats("S1b", arms, "CL-TD own", control="RL-TD own")


def _beats(name: str, arms: Arms, arm: str, control: str = "") -> Claim:
    """Whether an arm copies more than Random, more distinct members, and more than a control if there is one."""
    (rate, distinct), count = gains(arms, arm, "Random"), len(arms.hits)
    more, members = interval(rate), interval(distinct)
    whole = more[0] > 0 and members[0] > 0
    if control:
        whole &= interval(gains(arms, arm, control)[0])[0] > 0
    verdict = "reproduced" if whole else "trend only" if more[0] > 0 else "not reproduced"
    low, high = (one * arms.members for one in members)
    named = ["Random", *([control] if control else []), arm, "OL-TD", "CL-TD own"]
    shown = [name for place, name in enumerate(named) if name not in named[:place]]
    return Claim(
        name,
        _gated(verdict, count),
        figure=rates(arms, *shown),
        interval=more if count > 1 else None,
        n=count,
        text=f"AMS on {arms.data}, mean of {count} networks of {len(arms.hits[0][arm])} samples each; interval of "
        f"{arm} less Random; distinct members: {sum(distinct) / count * arms.members:+.0f} [{low:.0f}, {high:.0f}]",
    )


def s2(weights: Weights) -> Claim:
    """The peak is the weight of the paper's arm, OL-TD, with the largest AMS on samples of even number, mean of the
    networks; it is tested on the samples of odd number.

    Reproduced: AMS at the peak lies above AMS at weight 0 and above AMS at the largest weight. Trend only: above AMS at
    weight 0. Needs data or scale: fewer than three networks, or fewer than four weights. Else not reproduced.
    """
    peak, odd = peak_of(weights), weights.copies[:, :, 1]
    rise, fall = (interval((odd[:, peak] - odd[:, i]).tolist()) for i in (0, -1))
    verdict = "reproduced" if rise[0] > 0 and fall[0] > 0 else "trend only" if rise[0] > 0 else "not reproduced"
    ams = weights.copies.mean((0, 2))
    return Claim(
        "S2",
        _gated(verdict, len(odd), len(weights.weights) >= 4),
        figure={f"{weight:g}": float(rate) for weight, rate in zip(weights.weights, ams, strict=True)},
        interval=rise if len(odd) > 1 else None,
        n=len(odd),
        text=f"AMS of {weights.arm} by weight; interval of the peak, found on even samples, less weight 0 on odd ones",
    )


def s3(arms: Arms) -> Claim:
    """S3a and S3b together. Reproduced: both are. Trend only: S3a is reproduced. Needs data or scale: S3a does. Else
    not reproduced.
    """
    weaker, tenth = s3a(arms), s3b(arms)
    both = {weaker.verdict, tenth.verdict} == {"reproduced"}
    verdict = "trend only" if weaker.verdict == "reproduced" and not both else weaker.verdict
    return Claim(
        "S3",
        verdict,
        figure=rates(arms, "Random", "OL-TI", "OL-TD", "CL-TI own", "CL-TD own"),
        n=len(arms.hits),
        text=f"AMS; weaker without time: {weaker.verdict}; about a tenth: {tenth.verdict}; OL-TI is the teacher itself",
    )


def s3a(arms: Arms) -> Claim:
    """The direction. Reproduced: OL-TD copies more often than OL-TI, the teacher itself, at the same weight and on the
    same labels. Needs data or scale: fewer than three networks. Else not reproduced.
    """
    rate, count = gains(arms, "OL-TD", "OL-TI")[0], len(arms.hits)
    more = interval(rate)
    return Claim(
        "S3a",
        _gated("reproduced" if more[0] > 0 else "not reproduced", count),
        figure=rates(arms, "OL-TI", "OL-TD"),
        interval=more if count > 1 else None,
        n=count,
        text="AMS with the teacher itself and with its student of noisy images; interval of the difference",
    )


def s3b(arms: Arms) -> Claim:
    """The words, "about 10 %". Reproduced: OL-TD copies more often than OL-TI, and the AMS of OL-TI lies below a third
    of OL-TD's (the mean over networks of AMS of OL-TI less a third of that of OL-TD). Needs data or scale: fewer than
    three networks. Else not reproduced.
    """
    found, count = [_by_network(arms, name) for name in ("OL-TI", "OL-TD")], len(arms.hits)
    below = interval([a - b / 3 for a, b in zip(*found, strict=True)])
    more = interval([b - a for a, b in zip(*found, strict=True)])
    return Claim(
        "S3b",
        _gated("reproduced" if below[1] < 0 and more[0] > 0 else "not reproduced", count),
        figure=rates(arms, "OL-TI", "OL-TD"),
        interval=below if count > 1 else None,
        n=count,
        text="AMS of the teacher itself and of its student; interval of the first less a third of the second",
    )


def s4(arms: Arms) -> Claim:
    """The paper says it of 25,000 images with a label each. Needs data or scale: fewer than 10,000 members, or fewer
    than three networks with this arm. Otherwise: reproduced, OL-TD copies more often than RL-TD (training); else not
    reproduced.
    """
    both = [hits for hits in arms.hits if "RL-TD (training)" in hits]
    rate = [float((one["OL-TD"] >= 0).double().mean() - (one["RL-TD (training)"] >= 0).double().mean()) for one in both]
    more = interval(rate)
    large = arms.members >= PAPERS_SIZE
    return Claim(
        "S4",
        _gated("reproduced" if more[0] > 0 else "not reproduced", len(both), large),
        figure=rates(arms, "OL-TD", "RL-TD (training)", "RL-TD own", "RL-TD (oracle)"),
        n=max(1, len(both)),
        text=f"AMS; one label for each of {arms.members} members is the finest label there is; the paper has 25,000",
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
        n=1,
        text="1 where a student was shown a training image, first network; CL's labels come from generated images too",
    )


def s6(thresholds: Thresholds) -> Claim:
    """One joint test of the three bands. A held-out image scores the number of edges that it passes, 0 to 3; thresholds
    promise a mean score, the sum of their fractions, and the non-members show one in each network.

    With SSCD and its published bands. Reproduced: in the high band, unguided samples copy members more often than
    non-members. Else not reproduced. With another descriptor the published numbers mean nothing, so it is at best a
    trend. Trend only: the mean score lies below twice the promised one, and members are copied more often than
    non-members. Not reproduced: the mean score lies above the promised one, or members are not copied more often.
    Needs data or scale: anything else, and in either case fewer than three networks. Thresholds that let through less
    than they promise are no fault.
    """
    held, promised = thresholds.held, sum(thresholds.held[0].fractions.values())
    over = interval([score(one.passed) - promised for one in held], (-3.0, 3.0))
    more = interval([one.copied.rate - one.resembled.rate for one in held])
    official = thresholds.descriptor == "sscd"
    if official:
        verdict = "reproduced" if more[0] > 0 else "not reproduced"
    elif over[0] > 0 or more[0] <= 0:
        verdict = "not reproduced"
    else:
        verdict = "trend only" if over[1] < promised else "needs data or scale"
    bands = held[0].passed
    return Claim(
        "S6",
        _gated(verdict, len(held)),
        figure={band: sum(one.passed[band].rate for one in held) / len(held) for band in bands},
        interval=None if len(held) < 2 else over,
        n=len(held),
        text="fraction of non-members above the published thresholds"
        if official
        else "fraction of non-members past joint thresholds set on other held-out images for 5, 2 and 1 times fpr; "
        "interval of the score past what was promised; not SSCD",
    )


def score(passed: dict) -> float:
    """The mean number of edges passed, from counts by band: an image in the high band passes all three."""
    return sum(count.rate for count in passed.values())


def s7(weights: Weights) -> Claim:
    """Means of the top 0.1, 0.5, 1, 5 and 10 % of samples of odd number, those that hold ten samples or more, at the
    peak found as for S2: of the cosine, and of the distance of the nearest.

    Reproduced: all rise from weight 0 to the peak and fall from there to the largest weight, cosines up and distances
    down, and back. Trend only: all rise from weight 0. Needs data or scale: fewer than three networks, or fewer than
    four weights. Else not reproduced.
    """
    peak, count = peak_of(weights), len(weights.copies)
    up, down = [], []
    for values, sign in ((weights.tops, 1), (weights.near, -1)):
        odd = sign * values[:, :, 1]  # (K, W, T)
        for top in range(odd.shape[2]):
            if odd[:, :, top].isfinite().all():
                ends = [interval((odd[:, peak, top] - odd[:, i, top]).tolist(), None)[0] > 0 for i in (0, -1)]
                up.append(ends[0])
                down.append(ends[1])
    verdict = "reproduced" if all(up) and all(down) else "trend only" if all(up) else "not reproduced"
    means = weights.tops[:, peak].mean((0, 1))
    return Claim(
        "S7",
        _gated(verdict, count, len(weights.weights) >= 4),
        figure={f"top {100 * top:g} %": float(mean) for top, mean in zip(TOPS, means, strict=True) if mean == mean},
        n=count,
        text=f"mean cosine of {weights.arm} at the peak; of {len(up)} means of cosines and distances, {sum(up)} rise "
        f"from weight 0 and {sum(down)} fall to the largest weight",
    )


def g3(theory: Theory) -> Claim:
    """Real labels, latents of the model itself, classes of at least two members, unbiased covariances. Reproduced: no
    class in any network has a larger nuclear norm than all members, and the mean ratio lies below 1. Trend only: the
    mean ratio over classes lies below 1. Needs data or scale: fewer than three networks. Else not reproduced.
    """
    means = [float(one.mean()) for one in theory.spread if len(one)]  # a small network may have no such class
    ends, above = interval(means, None), sum(int((one > 1).sum()) for one in theory.spread)
    whole, count = sum(len(one) for one in theory.spread), len(means)
    verdict = "not reproduced" if ends[1] >= 1 else "trend only" if above else "reproduced"
    return Claim(
        "G3",
        _gated(verdict, count),
        figure=sum(means) / count if count else "no class of two members",
        interval=ends if count > 1 else None,
        n=count or len(theory.spread),
        text=f"nuclear norm of a class's covariance over that of all latents of chapter 2's models, mean over classes; "
        f"{above} of {whole} classes lie above 1",
    )


def interval(values: list[float], bounds: tuple[float, float] | None = (-1.0, 1.0)) -> tuple[float, float]:
    """Student's 95 % interval of the mean over networks; everything for one network alone."""
    if len(values) < 2:
        return -torch.inf, torch.inf
    return metrics.mean_interval(values, bounds=bounds or (-torch.inf, torch.inf))


def rates(arms: Arms, *names: str) -> dict[str, float]:
    """The fraction of samples that copy a member, mean of the networks that have the arm, by arm."""
    found = {name: _by_network(arms, name) for name in names}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def peak_of(weights: Weights) -> int:
    """The number of the weight with the largest AMS on samples of even number, so that the choice flatters no test."""
    return int(weights.copies[:, :, 0].mean(0).argmax())


def _by_network(arms: Arms, name: str) -> list[float]:
    return [float((hits[name] >= 0).double().mean()) for hits in arms.hits if name in hits]


def _gated(verdict: str, networks: int, premise: bool = True) -> str:
    """The verdict, or that its premise is missing."""
    return verdict if premise and networks >= FEWEST else "needs data or scale"
