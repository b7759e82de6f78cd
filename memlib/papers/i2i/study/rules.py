"""The rules of the ten claims, fixed before the data of this opening were looked at: pure functions of the results.

A docstring is the rule, as the protocol page quotes it.
"""

from typing import TypeVar

import torch
from torch import Tensor

from memlib.claim import Claim
from memlib.errors import Refused
from memlib.papers.i2i.evaluation import FORGOTTEN, Outcome, compare, interval, outcome, share_lost
from memlib.papers.i2i.study.comparison import CONTROL, PAPER_WEIGHT, RELEASED, Family
from memlib.papers.i2i.study.models import OURS
from memlib.papers.i2i.study.results import Results
from memlib.papers.i2i.study.second import PAPERS

T = TypeVar("T")

FAMILIES = 3  # of the paper
TASKS = 7  # of the paper
FAR = 0.75  # probability from which on forget completions lie far


def i1(results: Results) -> Claim:
    """*Needs data or scale* if, in some family of the paper, an original completes forget images no better than the
    fillings (by twice the margin, in every repetition); or if no family decides, that is, if the method as released
    neither keeps and forgets nor is shown to fail (it damages or remembers) in any. *Reproduced* if it keeps and
    *destroys* in all three families and every baseline is shown to fail in at least one of those where it is an arm: it
    damages, remembers, or forgets less by a paired interval. *Trend only* if it keeps and forgets in some family. Else
    *not reproduced*. The diffusion model with a code of the masked image is a control and decides nothing."""
    families, margin = papers_families(present(results.methods)), results.margin
    words = words_of(families, margin)
    good = [name for name, word in words.items() if word.holds]
    bad = [name for name, word in words.items() if word.on_retain == "damages" or word.on_forget == "remembers"]
    destroyed = [name for name in good if words[name].on_forget == "destroys"]
    whole = len(destroyed) == FAMILIES and all(failures(families, margin).values())
    if not (all(family.able(margin) for family in families.values()) and (good or bad)):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if whole else "trend only" if good else "not reproduced"
    first = next(iter(families))
    figure = {f"{f} {name}": shares(families[f], name) for f in words for name in families[f].best}
    share = words[first].share if first in words else interval(families[first].losses(RELEASED)[:, 1])
    text = "loss of cosine on retain images, then share lost on forget images; 90 % interval: share lost, as released, "
    return claim_of("I1", verdict, figure or {"nothing to lose": families[first].above}, share, text + first)


def papers_families(families: dict[str, Family]) -> dict[str, Family]:
    """The families that are the paper's: without the control."""
    return {name: family for name, family in families.items() if name != CONTROL}


def shares(family: Family, method: str) -> Tensor:
    """Loss on retain images and share lost on forget images, (S, 2)."""
    losses = family.losses(method)
    return torch.stack([losses[:, 0], share_lost(losses, family.above)], 1)


def words_of(families: dict[str, Family], margin: float) -> dict[str, Outcome]:
    """What the paper's method as released does in each family whose original has something to lose."""
    able = {name: family for name, family in families.items() if float(family.above.mean()) > 0}
    return {name: outcome(family.losses(RELEASED), family.above, margin) for name, family in able.items()}


def failures(families: dict[str, Family], margin: float) -> dict[str, list[str]]:
    """The families in which each baseline is shown to fail."""
    baselines = [name for name in next(iter(families.values())).best if name not in OURS]
    return {
        name: [
            f
            for f, family in families.items()
            if name in family.best
            and compare(family.losses(name), family.losses(RELEASED), family.above, margin) == "fails"
        ]
        for name in baselines
    }


def i2(results: Results) -> Claim:
    """One model completes holes of three sizes; it is scored with the smaller hole of the paper. *Needs data or scale*
    unless *this* model keeps and forgets with the larger hole, and its original beats the fillings with the smaller
    (lower end above the margin). *Reproduced* if it keeps and forgets with the smaller hole too, and loses less cosine
    on forget images than with the larger (lower end of the difference above 0). *Trend only* if more is lost on forget
    than on retain images (lower end above 0). Else *not reproduced*."""
    crops, margin = present(results.crops), results.margin
    first, second = crops.order[:2]
    large, small = (crops.losses[k][RELEASED] for k in (first, second))
    weaker, apart = interval((large - small)[:, 1])[0] > 0, interval(_apart(small))[0] > 0
    if not (_forgot(large, crops.above[first], margin) and interval(crops.above[second])[0] > margin):
        verdict, share = "needs data or scale", interval(small[:, 1])
    else:
        word = outcome(small, crops.above[second], margin)
        share = word.share
        verdict = "reproduced" if word.holds and weaker else "trend only" if apart else "not reproduced"
    figure = {f"{k} x {k}": crops.losses[k][RELEASED] for k in sorted(crops.losses)}
    text = f"loss of cosine, retain then forget, {results.gate.family}; 90 % interval: share lost, second crop"
    return claim_of("I2", verdict, figure, share, text)


def i3(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. A weight *balances* if the paper's method keeps and forgets with
    it. The sweep has five of the paper's weights as released, and three as printed. *Reproduced* if 0.25 balances as
    released, *trend only* if another weight does, or one as printed. Else *not reproduced*."""
    losses, margin = present(results.alpha).losses, results.margin
    paper = f"{RELEASED} {PAPER_WEIGHT:g}"
    if not results.gate.open(margin):
        verdict, share = "needs data or scale", interval(losses[paper][:, 1])
    else:
        words = {name: outcome(loss, results.gate.above, margin) for name, loss in losses.items()}
        share, balanced = words[paper].share, [name for name, word in words.items() if word.holds]
        verdict = "reproduced" if paper in balanced else "trend only" if balanced else "not reproduced"
    text = f"loss of cosine, retain then forget, {results.gate.family}; 90 % interval: share lost at {paper}"
    return claim_of("I3", verdict, losses, share, text)


def i4(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. A source of retain data *works* if the upper end of the loss on
    retain images is below twice the margin and the method forgets. The sources are proxies and 1 and 20 retain images
    a class. *Reproduced* if all work, *trend only* if some do. Else *not reproduced*."""
    losses, margin = present(results.data).losses, results.margin
    if not results.gate.open(margin):
        verdict = "needs data or scale"
    else:
        works = sources_that_work(losses, results.gate.above, margin)
        whole = len(works) == len(losses) - 1
        verdict = "reproduced" if whole else "trend only" if works else "not reproduced"
    text = "loss of cosine, retain then forget; 90 % interval: retain with proxies"
    return claim_of("I4", verdict, losses, interval(losses["proxy"][:, 0]), text)


def sources_that_work(losses: dict[str, Tensor], above: Tensor, margin: float) -> list[str]:
    """The sources of retain data, losses (S, 2) each, that keep within twice the margin and forget."""
    words = {name: outcome(loss, above, 2 * margin) for name, loss in losses.items() if name != "all"}
    return [name for name, word in words.items() if word.holds]


def i5(results: Results) -> Claim:
    """*Needs data or scale* unless the gate is open. The loss on forget images by N(0, I) minus that by U[-1, 1]:
    *reproduced* if its lower end is above 0, *not reproduced* if its upper end is below the margin. Else *needs data or
    scale*."""
    noise, margin = present(results.noise), results.margin
    low, high = interval((noise.losses["N(0, I)"] - noise.losses["U[-1, 1]"])[:, 1])
    if not results.gate.open(margin) or (low <= 0 and high >= margin):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if low > 0 else "not reproduced"
    figure = {kind: loss[:, 1:] for kind, loss in noise.losses.items()}
    return claim_of("I5", verdict, figure, (low, high), "loss on forget images; 90 % interval: Gaussian over uniform")


def i6(results: Results) -> Claim:
    """One model for all seven tasks, scored with half of the image hidden. A task *counts* if the original beats the
    fillings (lower end above the margin). *Needs data or scale* unless four tasks count and, over them, *this* model
    forgets (lower end of the share lost of the mean distance above 0.5). *Reproduced* if all seven count and the method
    keeps and forgets in each. *Trend only* if, over the tasks that count, more is lost on forget than on retain images
    (lower end of the mean difference above 0). Else *not reproduced*."""
    tasks, margin = present(results.tasks), results.margin
    half = tasks.half()
    losses = {task: tasks.losses[job] for task, job in half.items()}
    counts = tasks_that_count(results)
    held = [task for task in counts if outcome(losses[task], tasks.above[half[task]], margin).holds]
    gaps = [_apart(losses[task]) for task in counts] or [torch.zeros(len(results.gate.losses))]
    gap = interval(torch.stack(gaps).mean(0))
    if not (len(counts) >= 4 and over_tasks_forgot(results)):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if len(held) == TASKS else "trend only" if gap[0] > 0 else "not reproduced"
    text = "loss of cosine, retain then forget, half hidden; 90 % interval: the difference where it counts"
    return claim_of("I6", verdict, losses, gap, text)


def tasks_that_count(results: Results) -> list[str]:
    """The tasks in which the original, with half hidden, beats the best filling by more than the margin."""
    tasks = present(results.tasks)
    return [task for task, job in tasks.half().items() if interval(tasks.above[job])[0] > results.margin]


def over_tasks_forgot(results: Results) -> bool:
    """Whether the model of all tasks forgets, on the mean of the tasks that count."""
    tasks = present(results.tasks)
    jobs = [tasks.half()[task] for task in tasks_that_count(results)]
    if not jobs:
        return False
    losses, above = (torch.stack([part[job] for job in jobs]).mean(0) for part in (tasks.losses, tasks.above))
    return _forgot(losses, above, results.margin)


def i7(results: Results) -> Claim:
    """The original completes forget images again, from a centre that a model has made: in the VQ-GAN, the paper's
    family, which knows two holes, and where that is not run in the first family. *Needs data or scale* unless *this*
    model forgets the centre (lower end of the share lost above 0.5) and the centre that the original made helps
    more than one of another class (lower end above 0). *Reproduced* if the centre that the unlearned model made helps
    less than the margin more than one of another class (upper end) and less than the original's (lower end of the
    difference above 0). *Trend only* if only the latter holds. Else *not reproduced*."""
    every = present(results.second)
    return _second("I7", PAPERS if PAPERS in every else next(iter(every)), results)


def i7a(results: Results) -> Claim:
    """The same by the rule of I7 in the first family, with the model that knows all seven tasks."""
    return _second("I7a", next(iter(present(results.second))), results)


def _second(name: str, family: str, results: Results) -> Claim:
    second, margin = present(results.second)[family], results.margin
    cosine = second.cosine
    left = interval(cosine["F", "unlearned"] - cosine["F", "another class"])
    lower = interval(cosine["F", "original"] - cosine["F", "unlearned"])[0] > 0
    power = interval(cosine["F", "original"] - cosine["F", "another class"])[0] > 0
    if not (_forgot(second.losses, second.above, margin) and power):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if left[1] < margin and lower else "trend only" if lower else "not reproduced"
    figure = {f"{group} {name}": value for (group, name), value in cosine.items()}
    text = f"{family}: cosine of the second completion; 90 % interval: the unlearned centre over another class's"
    return claim_of(name, verdict, figure, left, text)


def i8(results: Results) -> Claim:
    """*Needs data or scale* if an original completes forget images no better than the fillings (by twice the margin).
    The figure is the probability that a forget completion lies farther from its truth than a retain completion from
    its own. *Reproduced* if unlearning raises it (lower end above 0) to more than 0.75 in every repetition, *trend
    only* if it raises it. Else *not reproduced*."""
    found = present(results.distances)
    rise = interval(found.unlearned - found.original)
    if not results.gate.able:
        verdict = "needs data or scale"
    elif rise[0] <= 0:
        verdict = "not reproduced"
    else:
        verdict = "reproduced" if found.unlearned.min() > FAR else "trend only"
    text = "probability that a forget completion lies farther from its truth than a retain one; 90 % interval: the rise"
    return claim_of("I8", verdict, {"original": found.original, "unlearned": found.unlearned}, rise, text)


def _forgot(losses: Tensor, above: Tensor, margin: float) -> bool:
    """Whether a model had something to lose on forget images and lost more than half of it, by a lower end."""
    return interval(above)[0] > margin and interval(share_lost(losses, above))[0] > FORGOTTEN


def _apart(losses: Tensor) -> Tensor:
    """Loss on forget minus loss on retain images, (S,), of losses (S, 2)."""
    return losses[:, 1] - losses[:, 0]


def claim_of(name: str, verdict: str, figure: dict[str, Tensor], ends: tuple[float, float], text: str) -> Claim:
    """The claim with means over repetitions, of values (S,) or (S, 2), as its figure; n is S."""
    count = len(next(iter(figure.values())))
    means = {key: values.mean(0).tolist() for key, values in figure.items()}
    plain = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in means.items()}
    return Claim(name, verdict, plain, count, ends, text)


def present(found: T | None) -> T:
    """The measurements that a rule needs. Raises Refused where they were not made."""
    if found is None:
        raise Refused("this claim was not measured in this run: run the study with its group")
    return found
