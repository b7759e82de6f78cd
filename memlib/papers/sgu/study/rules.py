"""The rules of the image claims: from what was measured to a verdict. The docstring is the rule.

The network is the unit: intervals are Student's over seeds, of differences paired by seed, at 95 %. Where either of two
arms may pass, each is looked at with 97.5 %. With fewer than three seeds a rule says *needs data or scale*.
"""

from collections.abc import Sequence

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.sgu.study.arms import PRINTED, SHAPED
from memlib.papers.sgu.study.comparing import (
    DROP,
    EITHER,
    GATE,
    LEAST,
    at_time,
    below,
    difference,
    gate,
    kept_difference,
    late,
    loss_of_standard,
    lost_and_kept,
    mean,
    rate,
    rises,
    seeds_of,
    tuned_below,
    tuned_difference,
    unlikely,
    upper_half,
)
from memlib.papers.sgu.study.results import Answers, Inpainting, Judged, Likelihoods, Reconstruction, Samples, Tuning


def u1(samples: Samples) -> Claim:
    """Unlearning ratio (UR) on the main task, of the losses as printed.

    Gate: more than 3 % of the samples of the retrained model hold forgotten content with a probability above .95, by
    interval; else *needs data or scale*. If for both losses UR lies below retraining's and precision is at most .05
    lower, both by interval, *reproduced*. If for one of them, *trend only*. Otherwise *not reproduced*.
    """
    return _ratios("U1", samples, PRINTED, "the losses as printed")


def u1b(samples: Samples) -> Claim:
    """The rule of U1 for the losses weighted where the classes part; *needs data or scale* where they were not run."""
    return _ratios("U1b", samples, SHAPED, "losses weighted about σ*")


def u1a(samples: Samples) -> Claim:
    """The gate of U1 on the control task, the paper's own kind of data (digits).

    If it does not pass, *needs data or scale*: the retrained model does not generalise, so there is nothing to go
    below. If it passes, *trend only*, since no loss is trained there. Without the task, *needs data or scale*.
    """
    judged = samples.judged.get(("control", samples.processes[0], "unseen"))
    if judged is None or len(judged.found) < LEAST:
        return Claim("U1a", "needs data or scale", 0, 1, None, "the control task was not run on several seeds")
    low, high = metrics.mean_interval(judged.sure / samples.n, bounds=(0, 1))
    figure = {"unseen": 100 * mean(judged.found / samples.n), "unseen, sure": 100 * mean(judged.sure / samples.n)}
    figure["real, sure"] = 100 * samples.judge["control"].sure
    return Claim(
        "U1a",
        "trend only" if low > GATE else "needs data or scale",
        figure,
        len(judged.found),
        (100 * low, 100 * high),
        "samples of the retrained model with forgotten digits, %; interval: of those the judge is sure of",
    )


def u2(likelihoods: Likelihoods) -> Claim:
    """Rise of the negative log-likelihood over the standard model, in bits per dimension at sigma = 0.05, test images.

    A loss *passes* if forgotten images rise beyond retraining, retained images by less than a quarter of that rise, and
    forgotten images under retraining by less than a quarter too, each by interval. If both losses pass, *reproduced*.
    If the first holds for one loss, *trend only*. Otherwise *not reproduced*.
    """
    rise = rises(likelihoods)
    seeds = len(rise["unseen", "D_f"])
    figure = {f"{arm}, {side}": mean(value) for (arm, side), value in rise.items()}
    text = "rise over standard in bits per dimension at σ = 0.05; interval: obtuse beyond retraining on D_f, over seeds"
    if seeds < LEAST:
        return Claim("U2", "needs data or scale", figure, seeds, None, text)
    passed = {arm: unlikely(rise, arm) for arm in PRINTED}
    some = any(metrics.mean_interval(rise[arm, "D_f"] - rise["unseen", "D_f"], EITHER)[0] > 0 for arm in PRINTED)
    verdict = "reproduced" if all(map(all, passed.values())) else "trend only" if some else "not reproduced"
    beyond = metrics.mean_interval(rise[PRINTED[1], "D_f"] - rise["unseen", "D_f"])
    return Claim("U2", verdict, figure, seeds, beyond, text)


def u3(samples: Samples) -> Claim:
    """Unlearning ratio of the obtuse loss minus that of the orthogonal one, as printed, near (many retained images are
    like the forgotten ones: features) and far (few are: classes).

    Gate: on both, retraining's UR lies above the floor, the fraction of real retained images in which the judge finds
    forgotten content, by interval; else *needs data or scale*. If the difference is below 0 near and above 0 far,
    *reproduced*. If one of the two, *trend only*. Otherwise *not reproduced*.
    """
    names, process = ("main", "far"), samples.processes[0]
    known = [name for name in names if (name, process, PRINTED[1]) in samples.judged]
    found = {
        (name, arm): samples.judged[name, process, arm].found / samples.n
        for name in known
        for arm in ("unseen", *PRINTED)
    }
    figure = {f"{'near' if name == 'main' else name}, {arm}": 100 * mean(v) for (name, arm), v in found.items()}
    seeds, text = len(found["main", "unseen"]), "UR in %; interval: obtuse minus orthogonal, near, points"
    if len(known) < 2 or seeds < LEAST:
        return Claim("U3", "needs data or scale", figure, seeds, None, "UR in %; needs both overlaps and three seeds")
    apart = {name: difference(found[name, PRINTED[1]], found[name, PRINTED[0]], EITHER) for name in names}
    floors = [
        metrics.mean_interval(found[name, "unseen"], bounds=(0, 1))[0] > samples.judge[name].in_retained
        for name in names
    ]
    right = apart["main"][1] < 0, apart["far"][0] > 0
    verdict = "reproduced" if all(right) else "trend only" if any(right) else "not reproduced"
    if not all(floors):
        verdict = "needs data or scale"
    ends = tuple(100 * end for end in difference(found["main", PRINTED[1]], found["main", PRINTED[0]]))
    return Claim("U3", verdict, figure, seeds, ends, text)


def u4(inpainting: Inpainting) -> Claim:
    """Fraction of test images that keep their class when the upper half is filled in anew.

    If a loss as printed loses the class of forgotten images more often than retraining and than the standard model, and
    keeps that of retained images to within 5 points of the standard model, each by interval, *reproduced*. If one loses
    it more often than the standard model, *trend only*. Otherwise *not reproduced*.
    """
    answers = upper_half(inpainting)
    text = "images that keep their class when the upper half is filled anew, %; interval: obtuse minus retraining, D_f"
    return _kept("U4", answers, text)


def u5(reconstruction: Reconstruction) -> Claim:
    """The rule of U4 for test images noised to t = 0.02 (sigma = 0.078) and denoised, as in the paper.

    Gate: there the standard model loses the class of 20 points of the forgotten images, else *needs data or scale*.
    """
    time = reconstruction.times[0]
    claim = _kept("U5", at_time(reconstruction, time), f"images that keep their class after t = {time:g}, %")
    if loss_of_standard(reconstruction, time) < DROP:
        text = f"{claim.text}; the standard model loses less than {100 * DROP:.0f} points there"
        return Claim("U5", "needs data or scale", claim.figure, claim.n, claim.interval, text)
    return claim


def u5a(reconstruction: Reconstruction) -> Claim:
    """The rule of U4 at the first time at which the standard model has lost the class of 20 points of the forgotten
    images; *needs data or scale* if it never does."""
    time = late(reconstruction)
    if time is None:
        text = "the standard model keeps the class at every time"
        return Claim(
            "U5a", "needs data or scale", 0, seeds_of(at_time(reconstruction, reconstruction.times[0])), None, text
        )
    text = f"images that keep their class after t = {time:g}, %; interval: obtuse minus retraining, D_f"
    return _kept("U5a", at_time(reconstruction, time), text)


def u6(tuning: Tuning) -> Claim:
    """Unlearning ratio after the longest fine-tuning with the losses as printed, on VP and DDPM.

    Without both processes or with fewer than three seeds, *needs data or scale*. If it lies below *retraining* for the
    obtuse loss on VP and DDPM and for the orthogonal loss on VP, as in the paper's table 5, *reproduced*. If all four
    lie below the standard model, *trend only*. Otherwise *not reproduced*.
    """
    steps, seeds = max(tuning.steps), len(next(iter(tuning.scratch.values())))
    needed = [(process, arm, steps) for process in ("VP", "DDPM") for arm in PRINTED]
    each, interval = 100 / tuning.n, None
    if seeds < LEAST or not all(key in tuning.tuned for key in needed):
        verdict, shown = "needs data or scale", [key for key in tuning.tuned if key[2] == steps]
        text = f"UR in % after {steps} steps; needs VP, DDPM and three seeds"
    else:
        shown = needed
        as_good = [tuned_below(tuning, *key[:2], "unseen") for key in needed if key[:2] != ("DDPM", PRINTED[0])]
        helps = [tuned_below(tuning, *key[:2], "standard") for key in needed]
        verdict = "reproduced" if all(as_good) else "trend only" if all(helps) else "not reproduced"
        text = f"UR in % after {steps} steps; interval: obtuse minus retraining on VP, points"
        low, high = tuned_difference(tuning, "VP", PRINTED[1], "unseen")
        interval = (100 * low, 100 * high)
    figure = {f"{key[0]}, {key[1]}": each * mean(tuning.tuned[key].found) for key in shown}
    unseen = {process: tuning.scratch[process, "unseen"] for process in dict.fromkeys(key[0] for key in shown)}
    figure |= {f"{process}, unseen": each * mean(found) for process, found in unseen.items()}
    return Claim("U6", verdict, figure, seeds, interval, text)


def u8(samples: Samples) -> Claim:
    """How the two losses as printed forget: share of noise-like samples, and of samples with the attribute beside (a
    hat), both over retraining.

    If the orthogonal loss makes more noise than retraining and than the obtuse loss, and the obtuse loss more hats than
    retraining and than the orthogonal loss, *reproduced*. If the orthogonal loss makes more noise than retraining and
    the obtuse loss more hats, *trend only*. Otherwise *not reproduced*. Without the attribute, *needs data or scale*.
    """
    process = samples.processes[0]
    judged = {arm: samples.judged["main", process, arm] for arm in ("unseen", *PRINTED)}
    seeds = len(judged["unseen"].found)
    noise = {arm: one.noisy / samples.n for arm, one in judged.items()}
    hats = {arm: one.beside / samples.n for arm, one in judged.items()}
    figure = {f"noise, {arm}": 100 * mean(value) for arm, value in noise.items()}
    figure |= {f"{samples.beside}, {arm}": 100 * mean(value) for arm, value in hats.items()} if samples.beside else {}
    text = f"noise-like samples and samples with {samples.beside or 'the attribute'}, %"
    if not samples.beside or seeds < LEAST:
        return Claim("U8", "needs data or scale", figure, seeds, None, text + "; needs drawn faces and three seeds")
    orthogonal, obtuse = PRINTED
    more = [difference(noise[orthogonal], noise[other])[0] > 0 for other in ("unseen", obtuse)]
    more += [difference(hats[obtuse], hats[other])[0] > 0 for other in ("unseen", orthogonal)]
    verdict = "reproduced" if all(more) else "trend only" if more[0] and more[2] else "not reproduced"
    ends = tuple(100 * end for end in difference(noise[orthogonal], noise[obtuse]))
    return Claim("U8", verdict, figure, seeds, ends, text + "; interval: noise, orthogonal minus obtuse, points")


def _ratios(name: str, samples: Samples, arms: Sequence[str], words: str) -> Claim:
    process = samples.processes[0]
    unseen: Judged = samples.judged["main", process, "unseen"]
    known = [arm for arm in ("standard", "unseen", *arms) if arm in samples.arms]
    seeds = min(len(samples.judged["main", process, arm].found) for arm in known)
    figure = {arm: 100 * rate(samples, "main", arm) for arm in known}
    figure["unseen, sure"] = 100 * mean(unseen.sure / samples.n)
    text = f"unlearning ratio in %, {words}, {process}; interval: the second loss minus retraining, points"
    if not gate(samples) or not set(arms) <= set(known):
        return Claim(name, "needs data or scale", figure, seeds, None, text)
    if all(below(samples, arm) for arm in arms):
        verdict = "reproduced"
    else:
        verdict = "trend only" if any(below(samples, arm, level=EITHER) for arm in arms) else "not reproduced"
    low, high = difference(samples.judged["main", process, arms[1]].found / samples.n, unseen.found / samples.n)
    return Claim(name, verdict, figure, seeds, (100 * low, 100 * high), text)


def _kept(name: str, answers: dict[tuple[str, str], Answers], text: str) -> Claim:
    figure = {f"{arm}, {side}": 100 * mean(value.same) for (arm, side), value in answers.items()}
    seeds = seeds_of(answers)
    if seeds < LEAST:
        return Claim(name, "needs data or scale", figure, seeds, None, text)
    passed = [lost_and_kept(answers, arm) for arm in PRINTED]
    verdict = "trend only" if any(some for _, some, _ in passed) else "not reproduced"
    if any(all(three) for three in passed):
        verdict = "reproduced"
    low, high = kept_difference(answers, PRINTED[1], "unseen", "D_f")
    return Claim(name, verdict, figure, seeds, (100 * low, 100 * high), text)
