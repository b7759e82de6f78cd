"""The rule of each claim: from what was measured to a verdict. The docstring is the rule.

Intervals are at 95 %. Over seeds they are Student's, of paired differences; with one seed they are the score interval
of the ratio of two counts; over images they are bootstrap intervals, of means over seeds and repetitions, or the score
interval of paired proportions where there is one of either.
"""

import torch
from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.sgu.study.arms import UNLEARNED
from memlib.papers.sgu.study.results import (
    SIDES,
    Answers,
    Inpainting,
    Likelihoods,
    Reconstruction,
    Samples,
    Toy,
    Tuning,
)

ANGLE_LEVEL = 0.3  # the level of U7
LATER = 0.3  # the time at which U5's rule is evaluated once more, deciding nothing
_SLACK = 0.05  # loss of the class on retained images that still counts as none
_UNTURNED = 0.1  # change of a cosine that still counts as none


def u1(samples: Samples) -> Claim:
    """Unlearning ratio (UR) of the first process on the class task.

    If retraining ("unseen") does not lie below the standard model, *needs data or scale*. If both unlearned arms lie
    below retraining by the interval and there are several seeds, *reproduced*. If one arm does, or both do with one
    seed, *trend only*. Otherwise *not reproduced*.
    """
    process = samples.processes[0]
    fewer = [below(samples, process, arm, "unseen") for arm in UNLEARNED]
    seeds = len(samples.judged["classes", process, "unseen"].found)
    if not below(samples, process, "unseen", "standard"):
        verdict = "needs data or scale"
    elif all(fewer) and seeds > 1:  # one network of each arm is no repetition
        verdict = "reproduced"
    else:
        verdict = "trend only" if any(fewer) else "not reproduced"
    return Claim(
        "U1",
        verdict,
        figure={arm: 100 * rate(samples, "classes", process, arm) for arm in samples.arms},
        n=seeds if seeds > 1 else samples.n,
        text=f"unlearning ratio in %, {samples.source}, {process}, {seeds} seed(s); by interval",
    )


def u2(likelihoods: Likelihoods) -> Claim:
    """Rise of the negative log-likelihood over the standard model, in bits per dimension at sigma = 0.05, test images.

    If for both unlearned arms D_f rises beyond retraining (interval over images), D_g rises by less than a quarter of
    that rise, and so does D_f under retraining, *reproduced*. If the first holds for one arm, *trend only*. Otherwise
    *not reproduced*.
    """
    rise = rises(likelihoods)
    passed = {arm: unlikely(rise, arm) for arm in UNLEARNED}
    every, some = all(map(all, passed.values())), any(more for more, _, _ in passed.values())
    return Claim(
        "U2",
        "reproduced" if every else "trend only" if some else "not reproduced",
        figure={f"{arm}, {side}": float(value.mean()) for (arm, side), value in rise.items()},
        n=len(rise["unseen", "D_f"]),
        text="rise over standard in bits per dimension at σ = 0.05; n forgotten test images",
    )


def u3(samples: Samples) -> Claim:
    """Unlearning ratio of the obtuse arm minus that of the orthogonal arm, on classes and on the attribute, over seeds.

    Without the attribute task or with one seed, *needs data or scale*. If it is above 0 on classes and below 0 on the
    attribute, *reproduced*. If one of the two, *trend only*. Otherwise *not reproduced*.
    """
    names = [name for name in ("classes", "attribute") if name in samples.judge]
    process = samples.processes[0]
    seeds = len(samples.judged["classes", process, "unseen"].found)
    if len(names) < 2 or seeds < 2:
        verdict, text = "needs data or scale", f"UR in %, {process}; needs the attribute task and several seeds"
    else:
        apart = {name: obtuse_minus_orthogonal(samples, name) for name in names}
        right = apart["classes"][0] > 0, apart["attribute"][1] < 0
        verdict = "reproduced" if all(right) else "trend only" if any(right) else "not reproduced"
        text = f"UR in %, classes and bangs, {process}; both differences by interval over n seeds"
    figure = {f"{name}, {arm}": 100 * rate(samples, name, process, arm) for name in names for arm in samples.arms}
    return Claim("U3", verdict, figure=figure, n=seeds, text=text)


def u4(inpainting: Inpainting) -> Claim:
    """Fraction of test images that keep their class when the upper half is filled in anew, by interval over images.

    If an unlearned arm loses the class of forgotten images more often than retraining and than the standard model, and
    keeps that of retained images to within 5 points of the standard model, *reproduced*. If an arm loses it more often
    than the standard model, *trend only*. Otherwise *not reproduced*.
    """
    answers = upper_half(inpainting)
    return Claim(
        "U4",
        kept_and_lost(answers),
        figure=_fractions(answers),
        n=len(answers["unseen", "D_f"].same),
        text="images that keep their class when the upper half is filled anew, %; n forgotten images",
    )


def u5(reconstruction: Reconstruction) -> Claim:
    """The rule of U4 for test images that were noised to t = 0.02 (sigma = 0.078) and denoised.

    What the rule says at t = 0.3 is printed and decides nothing.
    """
    answers = at_time(reconstruction, reconstruction.times[0])
    return Claim(
        "U5",
        kept_and_lost(answers),
        figure=_fractions(answers),
        n=len(answers["unseen", "D_f"].same),
        text="images that keep their class after t = 0.02 (σ = 0.078), %; n forgotten images",
    )


def u6(tuning: Tuning) -> Claim:
    """Unlearning ratio after the longest fine-tuning, on VP and DDPM, by paired interval over seeds.

    Without both processes, without the orthogonal arm or with one seed, *needs data or scale*. If it lies below
    *retraining* for the obtuse arm on VP and DDPM and for the orthogonal arm on VP, as in the paper's table 5,
    *reproduced*. If all four lie below the standard model, *trend only*. Otherwise *not reproduced*.
    """
    steps, seeds = max(tuning.steps), len(next(iter(tuning.scratch.values())))
    needed = [(process, arm, steps) for process in ("VP", "DDPM") for arm in UNLEARNED]
    if seeds < 2 or not all(key in tuning.tuned for key in needed):
        verdict, shown = "needs data or scale", [key for key in tuning.tuned if key[2] == steps]
        text = f"UR in % after {steps} steps; needs VP, DDPM, both losses and several seeds"
    else:
        shown = needed
        as_good = [tuned_below(tuning, *key[:2], "unseen") for key in needed if key[:2] != ("DDPM", "orthogonal")]
        helps = [tuned_below(tuning, *key[:2], "standard") for key in needed]
        verdict = "reproduced" if all(as_good) else "trend only" if all(helps) else "not reproduced"
        text = f"UR in % after {steps} steps, against retraining by interval over n seeds"
    each = 100 / tuning.n
    figure = {f"{key[0]}, {key[1]}": each * float(tuning.tuned[key].found.double().mean()) for key in shown}
    unseen = {process: tuning.scratch[process, "unseen"] for process in dict.fromkeys(key[0] for key in shown)}
    figure |= {f"{process}, unseen": each * float(found.double().mean()) for process, found in unseen.items()}
    return Claim("U6", verdict, figure=figure, n=seeds, text=text)


def u7(toy: Toy) -> Claim:
    """Cosine of the learned score with the score of the forgotten mode, in the toy.

    It is taken at noised forget points, at the level nearest to sigma = 0.3 (0.32), and averaged over points.
    If obtuse lies below retraining by the interval over seeds, has a mean below 0, and retraining lies within 0.1 of
    the standard model, *reproduced*. If obtuse lies below retraining, *trend only*. Otherwise *not reproduced*.
    """
    at = int((toy.levels - ANGLE_LEVEL).abs().argmin())
    turn = {arm: toy.cosine[arm, "D_f"][:, at] for arm in ("standard", "unseen", "orthogonal", "obtuse")}
    beyond = metrics.mean_interval(turn["obtuse"] - turn["unseen"])
    low, high = metrics.mean_interval(turn["unseen"] - turn["standard"])
    unturned = low > -_UNTURNED and high < _UNTURNED
    away = beyond[1] < 0 and float(turn["obtuse"].mean()) < 0
    return Claim(
        "U7",
        "reproduced" if away and unturned else "trend only" if beyond[1] < 0 else "not reproduced",
        figure={arm: float(value.mean()) for arm, value in turn.items()},
        interval=beyond,
        n=len(turn["obtuse"]),
        text=(
            f"cosine of learned and forgotten score at D_f, σ = {toy.levels[at]:.2f}; "
            "interval: obtuse minus unseen, paired by seed"
        ),
    )


# What the rules are made of.


def rate(samples: Samples, task: str, process: str, arm: str) -> float:
    """The unlearning ratio, pooled over seeds."""
    return float(samples.judged[task, process, arm].found.double().mean()) / samples.n


def ratio_interval(samples: Samples, task: str, process: str, arm: str) -> tuple[float, float]:
    """The interval of an unlearning ratio: over seeds if there are several, else that of one count."""
    found = samples.judged[task, process, arm].found
    if len(found) > 1:
        return metrics.mean_interval(found / samples.n, bounds=(0, 1))
    return metrics.Count(int(found), samples.n).interval()


def below(samples: Samples, process: str, arm: str, other: str) -> bool:
    """Whether an arm has a smaller unlearning ratio than another on classes, by the interval."""
    a, b = (samples.judged["classes", process, name].found for name in (arm, other))
    if len(a) > 1:
        return metrics.mean_interval((a - b) / samples.n, bounds=(-1, 1))[1] < 0
    return metrics.ratio_interval(metrics.Count(int(a), samples.n), metrics.Count(int(b), samples.n))[1] < 1


def obtuse_minus_orthogonal(samples: Samples, task: str) -> tuple[float, float]:
    """The interval over seeds of the difference of unlearning ratios."""
    obtuse, orthogonal = (samples.judged[task, samples.processes[0], arm].found for arm in ("obtuse", "orthogonal"))
    return metrics.mean_interval((obtuse - orthogonal) / samples.n, bounds=(-1, 1))


def rises(likelihoods: Likelihoods) -> dict[tuple[str, str], Tensor]:
    """Arm, side -> rise over the standard model of each test image, mean over seeds, (N,)."""
    process = likelihoods.processes[0]
    mean = {key[1:]: bits.mean(0) for key, bits in likelihoods.bits.items() if key[0] == process}
    return {
        (arm, side): mean[arm, side] - mean["standard", side]
        for arm in likelihoods.arms
        if arm != "standard"
        for side in SIDES
    }


def unlikely(rise: dict[tuple[str, str], Tensor], arm: str) -> tuple[bool, bool, bool]:
    """Of rises (N,): D_f beyond retraining; D_g below a quarter of it; D_f under retraining below a quarter."""
    generator, mean = torch.Generator().manual_seed(0), rise[arm, "D_f"].mean()
    low, _ = metrics.paired_interval(rise[arm, "D_f"], rise["unseen", "D_f"], generator=generator)
    return low > 0, bool(rise[arm, "D_g"].mean() < mean / 4), bool(rise["unseen", "D_f"].mean() < mean / 4)


def hole(likelihoods: Likelihoods) -> dict[str, tuple[float, tuple[float, float]]]:
    """How well the rise over retraining tells forgotten from retained images, for each unlearned arm: AUC, interval."""
    rise = rises(likelihoods)
    apart = {
        arm: (rise[arm, "D_f"] - rise["unseen", "D_f"], rise[arm, "D_g"] - rise["unseen", "D_g"])
        for arm in likelihoods.arms
        if arm not in ("standard", "unseen")
    }
    return {arm: metrics.auc(*sides) for arm, sides in apart.items()}


def upper_half(inpainting: Inpainting) -> dict[tuple[str, str], Answers]:
    """Arm, side -> answers on the class task with the upper half hidden."""
    return {
        (arm, side): inpainting.answers["classes", "upper half", arm, side] for arm in inpainting.arms for side in SIDES
    }


def at_time(reconstruction: Reconstruction, time: float) -> dict[tuple[str, str], Answers]:
    """Arm, side -> answers after noise of this time."""
    return {(arm, side): reconstruction.answers[time, arm, side] for arm in reconstruction.arms for side in SIDES}


def kept_and_lost(answers: dict[tuple[str, str], Answers]) -> str:
    """The verdict of U4 and U5."""
    passed = [lost_and_kept(answers, arm) for arm in UNLEARNED]
    if any(all(three) for three in passed):
        return "reproduced"
    return "trend only" if any(some for _, some, _ in passed) else "not reproduced"


def lost_and_kept(answers: dict[tuple[str, str], Answers], arm: str) -> tuple[bool, bool, bool]:
    """Whether an arm loses D_f beyond retraining, loses it beyond the standard model, and keeps D_g."""
    more = difference(answers, arm, "unseen", "D_f")[1] < 0
    some = difference(answers, arm, "standard", "D_f")[1] < 0
    return more, some, difference(answers, arm, "standard", "D_g")[0] > -_SLACK


def difference(answers: dict[tuple[str, str], Answers], arm: str, other: str, side: str) -> tuple[float, float]:
    """The interval over images of the fraction that keeps its class, an arm minus another."""
    a, b = answers[arm, side].same, answers[other, side].same
    return metrics.paired_interval(a, b, generator=torch.Generator().manual_seed(0))


def tuned_below(tuning: Tuning, process: str, arm: str, other: str) -> bool:
    """Whether the longest fine-tuning has a smaller unlearning ratio than a network from scratch, paired over seeds."""
    fewer = tuning.tuned[process, arm, max(tuning.steps)].found - tuning.scratch[process, other]
    return metrics.mean_interval(fewer / tuning.n, bounds=(-1, 1))[1] < 0


def _fractions(answers: dict[tuple[str, str], Answers]) -> dict[str, float]:
    """Images that keep their class, in %, by arm and side."""
    return {f"{arm}, {side}": 100 * float(value.same.mean()) for (arm, side), value in answers.items()}
