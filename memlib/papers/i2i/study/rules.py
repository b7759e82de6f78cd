"""The rules of the ten claims, fixed before the report half was opened: pure functions of the results.

A docstring is the rule, as the protocol page quotes it.
"""

from typing import TypeVar

import torch
from torch import Tensor

from memlib.claim import Claim
from memlib.errors import Refused
from memlib.papers.i2i.evaluation import Outcome, compare, interval, outcome
from memlib.papers.i2i.study.comparison import LI2024, PAPER_WEIGHT, Family
from memlib.papers.i2i.study.results import Results

T = TypeVar("T")

FAMILIES = 3  # of the paper
TASKS = 7  # of the paper
FAR = 0.75  # probability from which on forget completions lie far


def i1(results: Results) -> Claim:
    """*Needs data or scale* if, in some family, an original completes forget images no better than the fillings (by
    twice the margin, in every repetition); or if no family decides, that is, if the paper's method neither keeps and
    forgets nor is shown to fail (it damages or remembers) in any. *Reproduced* if it keeps and forgets in all three
    families and every baseline is shown to fail in at least one: it damages, remembers, or forgets less than the
    paper's method by a paired interval. *Trend only* if the paper's method keeps and forgets in some family. Else *not
    reproduced*."""
    families, margin = _present(results.methods), results.margin
    words = words_of(families, margin)
    good = [name for name, word in words.items() if (word.on_retain, word.on_forget) == ("keeps", "forgets")]
    bad = [name for name, word in words.items() if word.on_retain == "damages" or word.on_forget == "remembers"]
    whole = len(good) == FAMILIES and all(failures(families, margin).values())
    if not (all(family.able(margin) for family in families.values()) and (good or bad)):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if whole else "trend only" if good else "not reproduced"
    first = next(iter(families))
    figure = {f"{f} {name}": family.losses(name) for f, family in families.items() for name in family.best}
    text = f"loss of cosine, retain then forget, in {', '.join(families)}; 90 % interval: {LI2024} on forget images, "
    return _claim("I1", verdict, figure, words[first].forget, text + first)


def words_of(families: dict[str, Family], margin: float) -> dict[str, Outcome]:
    """What the paper's method does in each family: keeps or damages, forgets or remembers."""
    return {name: outcome(family.losses(LI2024), margin) for name, family in families.items()}


def failures(families: dict[str, Family], margin: float) -> dict[str, list[str]]:
    """The families in which each baseline is shown to fail."""
    baselines = [name for name in next(iter(families.values())).best if name != LI2024]
    return {
        name: [
            f
            for f, family in families.items()
            if compare(family.losses(name), family.losses(LI2024), margin) == "fails"
        ]
        for name in baselines
    }


def i2(results: Results) -> Claim:
    """One model completes holes of three sizes; it is scored with the smaller hole of the paper. *Needs data or scale*
    unless the gate is open and the original beats the fillings there (lower end above the margin). *Reproduced* if the
    upper end of the loss on retain images is below the margin, the loss on forget images is above 0 (lower end), and
    it is smaller than with the larger hole (lower end of the difference above 0). *Trend only* if more is lost on
    forget than on retain images (lower end above 0). Else *not reproduced*."""
    crops, margin = _present(results.crops), results.margin
    large, small = (crops.losses[k] for k in crops.order[:2])
    forgot, kept = interval(small[:, 1]), interval(small[:, 0])[1] < margin
    weaker, apart = interval((large - small)[:, 1])[0] > 0, interval(_apart(small))[0] > 0
    if not (results.gate.open(margin) and interval(crops.above[crops.order[1]])[0] > margin):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if kept and forgot[0] > 0 and weaker else "trend only" if apart else "not reproduced"
    figure = {f"{k} x {k}": crops.losses[k] for k in sorted(crops.losses)}
    text = f"loss of cosine, retain then forget, {results.gate.family}; 90 % interval: forget, second crop"
    return _claim("I2", verdict, figure, forgot, text)


def i3(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. A weight *balances* if the paper's method keeps and forgets with
    it and loses on forget images more than half of the most that any weight of the sweep loses; the sweep has the
    paper's seven weights and those tried here. *Reproduced* if 0.25 balances, *trend only* if another weight does.
    Else *not reproduced*."""
    losses, margin = _present(results.alpha).losses, results.margin
    most = max(float(loss[:, 1].mean()) for loss in losses.values())
    words = {name: outcome(loss, margin) for name, loss in losses.items()}
    balanced = [
        name
        for name, word in words.items()
        if (word.on_retain, word.on_forget) == ("keeps", "forgets") and losses[name][:, 1].mean() > most / 2
    ]
    paper = f"{PAPER_WEIGHT:g}"
    if not results.gate.open(margin):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if paper in balanced else "trend only" if balanced else "not reproduced"
    figure = {f"alpha {name}": loss for name, loss in losses.items()}
    text = f"loss of cosine, retain then forget, {results.gate.family}; 90 % interval: forget at {paper}"
    return _claim("I3", verdict, figure, words[paper].forget, text)


def i4(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. A source of retain data *works* if the upper end of the loss on
    retain images is below twice the margin and the lower end on forget images is above the margin. The sources are
    proxies and 1, 5, 10, 20, 25 and 50 retain images a class. *Reproduced* if all work, *trend only* if some do. Else
    *not reproduced*."""
    losses, margin = _present(results.data).losses, results.margin
    works = sources_that_work(losses, margin)
    if not results.gate.open(margin):
        verdict = "needs data or scale"
    else:
        whole = len(works) == len(losses) - 1
        verdict = "reproduced" if whole else "trend only" if works else "not reproduced"
    text = "loss of cosine, retain then forget; 90 % interval: retain with proxies"
    return _claim("I4", verdict, losses, interval(losses["proxy"][:, 0]), text)


def sources_that_work(losses: dict[str, Tensor], margin: float) -> list[str]:
    """The sources of retain data, losses (S, 2) each, that keep within twice the margin and forget."""
    return [
        name
        for name, loss in losses.items()
        if name != "all" and interval(loss[:, 0])[1] < 2 * margin and interval(loss[:, 1])[0] > margin
    ]


def i5(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. The loss on forget images by N(0, I) minus that by U[-1, 1]:
    *reproduced* if its lower end is above 0, *not reproduced* if its upper end is below the margin. Else *needs data or
    scale*."""
    noise, margin = _present(results.noise), results.margin
    low, high = interval((noise.losses["N(0, I)"] - noise.losses["U[-1, 1]"])[:, 1])
    if not results.gate.open(margin) or (low <= 0 and high >= margin):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if low > 0 else "not reproduced"
    figure = {kind: loss[:, 1:] for kind, loss in noise.losses.items()}
    return _claim("I5", verdict, figure, (low, high), "loss on forget images; 90 % interval: Gaussian over uniform")


def i6(results: Results) -> Claim:
    """One model for all seven tasks, scored with the larger of two holes. A task *counts* if the original beats the
    fillings (lower end above the margin). *Needs data or scale* unless the gate is open and four tasks count.
    *Reproduced* if all seven count and, in each, the paper's method keeps and the loss on forget images is above 0
    (lower end). *Trend only* if, over the tasks that count, more is lost on forget than on retain images (lower end of
    the mean difference above 0). Else *not reproduced*."""
    tasks, margin = _present(results.tasks), results.margin
    larger = tasks.larger()
    losses = {task: tasks.losses[job] for task, job in larger.items()}
    words = {task: outcome(loss, margin) for task, loss in losses.items()}
    counts = tasks_that_count(results)
    held = [task for task in counts if words[task].on_retain == "keeps" and words[task].forget[0] > 0]
    gaps = [_apart(losses[task]) for task in counts] or [torch.zeros(len(results.gate.losses))]
    gap = interval(torch.stack(gaps).mean(0))
    if not (results.gate.open(margin) and len(counts) >= 4):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if len(held) == TASKS else "trend only" if gap[0] > 0 else "not reproduced"
    text = "loss of cosine, retain then forget, larger hole; 90 % interval: the difference where it counts"
    return _claim("I6", verdict, losses, gap, text)


def tasks_that_count(results: Results) -> list[str]:
    """The tasks in which the original, with the larger hole, beats the best filling by more than the margin."""
    tasks = _present(results.tasks)
    return [task for task, job in tasks.larger().items() if interval(tasks.above[job])[0] > results.margin]


def i7(results: Results) -> Claim:
    """The original completes forget images again, from a centre that a model has made. *Needs data or scale* unless the
    gate is open and the centre that the original made helps more than one of another class (lower end above 0).
    *Reproduced* if the centre that the unlearned model made helps less than the margin more than one of another class
    (upper end) and less than the original's (lower end of the difference above 0). *Trend only* if only the latter
    holds. Else *not reproduced*."""
    cosine, margin = _present(results.second).cosine, results.margin
    left = interval(cosine["F", "unlearned"] - cosine["F", "another class"])
    lower = interval(cosine["F", "original"] - cosine["F", "unlearned"])[0] > 0
    power = interval(cosine["F", "original"] - cosine["F", "another class"])[0] > 0
    if not (results.gate.open(margin) and power):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if left[1] < margin and lower else "trend only" if lower else "not reproduced"
    figure = {f"{group} {name}": value for (group, name), value in cosine.items()}
    text = "cosine of the second completion; 90 % interval: the unlearned centre over another class's"
    return _claim("I7", verdict, figure, left, text)


def i8(results: Results) -> Claim:
    """*Needs data or scale* if an original completes forget images no better than the fillings (by twice the margin).
    The figure is the probability that a forget completion lies farther from its truth than a retain completion from
    its own. *Reproduced* if unlearning raises it (lower end above 0) to more than 0.75 in every repetition, *trend
    only* if it raises it. Else *not reproduced*."""
    found = _present(results.distances)
    rise = interval(found.unlearned - found.original)
    if not results.gate.able:
        verdict = "needs data or scale"
    elif rise[0] <= 0:
        verdict = "not reproduced"
    else:
        verdict = "reproduced" if found.unlearned.min() > FAR else "trend only"
    text = "probability that a forget completion lies farther from its truth than a retain one; 90 % interval: the rise"
    return _claim("I8", verdict, {"original": found.original, "unlearned": found.unlearned}, rise, text)


def i9(results: Results) -> Claim:
    """A check of arithmetic. Theorem 1 *holds* if the printed bound stays below InfoNCE, and InfoNCE below its maximum,
    at every moment of the first repetition; if forget codes come nearer to those of noise in every repetition; and if
    the bound of equation 9 rises (lower end above 0). *Reproduced* if it holds and lemma 1 is true as well, *trend
    only* if it holds alone. Else *not reproduced*."""
    found = _present(results.theory)
    printed, infonce, maximum, distance, _ = found.along.unbind(-1)
    ordered = bool((printed <= infonce + 1e-9).all() and (infonce <= maximum).all())
    nearer = bool((found.ends[:, 1, 3] < found.ends[:, 0, 3]).all())
    rises = found.ends[:, 1, 0] - found.ends[:, 0, 0]
    holds = ordered and nearer and interval(rises)[0] > 0
    verdict = "not reproduced" if not holds else "reproduced" if found.lemma1() else "trend only"
    figure = {"rise of the bound on forget images, nats": rises}
    text = "theorem 1: a smaller distance goes with a larger bound, below InfoNCE throughout; lemma 1 is false; 90 %"
    return _claim("I9", verdict, figure, interval(rises), text)


def i10(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. The loss on forget images by N(0, I) minus that by the exact
    covariance of the images (by rank 8 where the images are too large for it): if it is shown to differ from 0 by more
    than the margin, *not reproduced*; if it is shown to lie within the margin either way, *reproduced* where the
    fraction of the squared covariance off the diagonal is below twice that of shuffled pixels, else *trend only*.
    Otherwise *needs data or scale*."""
    noise, margin = _present(results.noise), results.margin
    other = "exact covariance" if "exact covariance" in noise.losses else "rank 8"
    low, high = interval((noise.losses["N(0, I)"] - noise.losses[other])[:, 1])
    same, different = -margin < low and high < margin, low > margin or high < -margin
    if not results.gate.open(margin) or not (same or different):
        verdict = "needs data or scale"
    elif different:
        verdict = "not reproduced"
    else:
        diagonal = noise.by_chance is not None and noise.off_diagonal < 2 * noise.by_chance
        verdict = "reproduced" if diagonal else "trend only"
    figure = {"off the diagonal": noise.off_diagonal}
    figure |= {} if noise.by_chance is None else {"by chance": noise.by_chance}
    text = f"90 % interval: forgetting by the identity over that by the {other}"
    return Claim("I10", verdict, figure, len(noise.losses[other]), (low, high), text)


def _apart(losses: Tensor) -> Tensor:
    """Loss on forget minus loss on retain images, (S,), of losses (S, 2)."""
    return losses[:, 1] - losses[:, 0]


def _claim(name: str, verdict: str, figure: dict[str, Tensor], ends: tuple[float, float], text: str) -> Claim:
    """The claim with means over repetitions as its figure; n is the number of repetitions."""
    count = len(next(iter(figure.values())))
    means = {key: values.mean(0).tolist() for key, values in figure.items()}
    plain = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in means.items()}
    return Claim(name, verdict, plain, count, ends, text)


def _present(found: T | None) -> T:
    """The measurements that a rule needs. Raises Refused where they were not made."""
    if found is None:
        raise Refused("this claim was not measured in this run: run the study with its group")
    return found
