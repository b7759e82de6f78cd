"""When a claim counts as reproduced: pure functions of the results. The protocol page quotes their docstrings.

The unit is a pair of models, whose training sets are complements: intervals run over pairs, with Student's quantile.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.loop.study.results import ATTACKS, Frontier, Loop, Practices, Results, by_pair
from memlib.papers.loop.study.rounds import SGU

LEFT = 0.1  # of what the original gives away: a model that gives away less than this more than a retrained one stopped
WORSE = 0.1  # precision that may be lost

_ORDER = ("reproduced", "trend only", "needs data or scale", "not reproduced")


def verdicts(results: Results) -> list[Claim]:
    """The verdict on each claim of the groups that were run."""
    found = []
    if results.loop is not None:
        found.append(c1(results.loop))
        if guided(results.loop):
            found.append(c1b(results.loop))
    if results.frontier is not None:
        found.append(c2(results.frontier))
    if results.practices is not None and "matching" in results.practices.curves:
        found.append(c2b(results.practices))
    return found


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean over pairs, of (T,) values in [-1, 1]."""
    return metrics.mean_interval(by_pair(values), level, (-1, 1))


def guided(found: dict[str, Loop]) -> bool:
    """Whether samples were guided in every kind of forgetting."""
    return all(arm.steered for one in found.values() for arm in one.arms.values())


def c1(found: dict[str, Loop]) -> Claim:
    """C1, unlearning stops extraction.

    Measured is the share of samples that copy an image which the model was asked to forget. *Needs data or scale*
    unless the original copies these more often than the retrained model (interval of the paired difference above 0).
    There are two arms, SGU's orthogonal and obtuse loss, so their intervals are of 97.5 %. An arm *keeps quality* if
    its precision is less than .1 below that of the retrained model (lower end of the paired difference above -.1). It
    *stops* extraction if what it copies beyond the retrained model is less than a tenth of what the original copies
    beyond it (upper end of that contrast below 0). *Reproduced* if an arm stops extraction and keeps quality. *Trend
    only* if an arm that keeps quality copies less than the original (upper end below 0). Otherwise *not reproduced*.
    Where several kinds of images were forgotten, the weakest verdict counts.
    """
    shares = {kind: {"": {name: arm.share(one.gone) for name, arm in one.arms.items()}} for kind, one in found.items()}
    return _claim("C1", found, shares)


def c1b(found: dict[str, Loop]) -> Claim:
    """C1b, unlearning also stops extraction by samples that are guided.

    Two attacks of chapter 2 are steered by a classifier: by labels of the model's own samples, and towards the labels
    of the forgotten images. The measure, the arms and their intervals are those of C1. *Needs data or scale* unless the
    original copies forgotten images more often than the retrained model under both attacks. *Reproduced* if an arm that
    keeps quality stops extraction under both. *Trend only* if an arm that keeps quality copies less than the original
    under both. Otherwise *not reproduced*. Where several kinds of images were forgotten, the weakest verdict counts.
    """
    shares = {
        kind: {
            attack: {name: arm.share_steered(attack, one.gone) for name, arm in one.arms.items()}
            for attack in ATTACKS[1:]
        }
        for kind, one in found.items()
    }
    return _claim("C1b", found, shares)


Judged = tuple[str, tuple[float, float], str]  # verdict, deciding interval, and a sentence


def _claim(name: str, found: dict[str, Loop], shares: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> Claim:
    """The weakest verdict over kinds of forgetting, from the share of copies by kind, attack and arm, (T,) each."""
    judged = {kind: _over_attacks(loop, shares[kind]) for kind, loop in found.items()}
    kind, (verdict, interval_, text) = max(judged.items(), key=lambda item: _ORDER.index(item[1][0]))
    figure = {
        f"{kind}, {attack}: {arm}" if attack else f"{kind}: {arm}": float(share.mean())
        for kind, attacks in shares.items()
        for attack, arms in attacks.items()
        for arm, share in arms.items()
    }
    return Claim(name, verdict, figure, len(found[kind].gone) // 2, interval_, f"{kind}: {text}")


def _over_attacks(loop: Loop, attacks: Mapping[str, Mapping[str, Tensor]]) -> Judged:
    """The best arm of one kind of forgetting; an arm is worth what the attack that it withstands least makes of it."""
    for share in attacks.values():
        known = interval(share["original"] - share["retrained"])
        if not known[0] > 0:
            said = "the original does not copy what is to be forgotten more than chance does"
            return "needs data or scale", known, said
    arms = [max((_arm(loop, share, arm) for share in attacks.values()), key=_place) for arm in SGU]
    return min(arms, key=_place)


def _arm(loop: Loop, share: Mapping[str, Tensor], arm: str) -> Judged:
    """What one attack, by its share of copies (T,) of each arm, makes of an arm."""
    original, retrained, level = share["original"], share["retrained"], 1 - 0.05 / len(SGU)
    precision = loop.arms[arm].precision - loop.arms["retrained"].precision
    left = interval((share[arm] - retrained) - LEFT * (original - retrained), level)
    less = interval(share[arm] - original, level)
    kept = interval(precision, level)[0] > -WORSE
    said = (
        f"{arm}: {float(share[arm].mean()):.2%} of samples copy a forgotten image, "
        f"{float(original.mean()):.2%} before and {float(retrained.mean()):.2%} when retrained"
    )
    if kept and left[1] < 0:
        return "reproduced", left, said
    if kept and less[1] < 0:
        return "trend only", left, said
    return "not reproduced", left, f"{said}; or its samples are worse"


def _place(judged: Judged) -> int:
    return _ORDER.index(judged[0])


def c2(found: Frontier) -> Claim:
    """C2, a larger learning rate leaves less to extract at equal quality.

    Each model is stopped at the look at which its precision is highest among one half of the held-out images, and
    judged among the other half. *Needs data or scale* unless the usual rate copies members in more than 1 % of samples
    (lower end), the rate at which held-out images pass for copies. *Reproduced* if the large rate copies less (interval
    of the paired difference below 0) and its precision is less than .1 lower (lower end of the paired difference above
    -.1). *Trend only* if it copies less. Otherwise *not reproduced*.
    """
    judged = less_to_extract(found.stopped(found.usual), found.stopped(found.large))
    figure = {
        f"rate {rate:g}: {name}": float(value.mean())
        for rate in sorted(found.share)
        for name, value in zip(("precision", "copies"), found.stopped(rate), strict=True)
    }
    share, usual = (float(found.stopped(rate)[1].mean()) for rate in (found.large, found.usual))
    text = (
        f"stopped where precision is best, {share:.1%} of samples are copies at the rate {found.large:g}, and "
        f"{usual:.1%} at {found.usual:g}"
    )
    return Claim("C2", judged.verdict, figure, len(found.share[found.usual][0]) // 2, judged.copies, text)


def c2b(found: Practices) -> Claim:
    """C2b, training with Real-Fake's matching term leaves less to extract at equal quality.

    Models are stopped and judged as in C2. *Needs data or scale* unless the usual training copies members in more than
    1 % of samples (lower end). *Reproduced* if training with the term copies less (interval of the paired difference
    below 0) and its precision is less than .1 lower (lower end above -.1). *Trend only* if it copies less. Otherwise
    *not reproduced*. The other ways to train stand in a table, with intervals of 1 - .05/m for m of them, and have no
    verdict.
    """
    stopped = {name: curve.stopped() for name, curve in found.curves.items()}
    judged = less_to_extract(stopped["usual"], stopped["matching"])
    figure = {
        f"{name}: {what}": float(value.mean())
        for name, both in stopped.items()
        for what, value in zip(("precision", "copies"), both, strict=True)
    }
    share, usual = (float(stopped[name][1].mean()) for name in ("matching", "usual"))
    text = f"stopped where precision is best, {share:.1%} of samples are copies with the term, and {usual:.1%} without"
    return Claim("C2b", judged.verdict, figure, len(stopped["usual"][0]) // 2, judged.copies, text)


class Compared(NamedTuple):
    """A verdict, and the intervals of the paired differences from the usual training: of copies, and of precision."""

    verdict: str
    copies: tuple[float, float]
    precision: tuple[float, float]


def less_to_extract(usual: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], level: float = 0.95) -> Compared:
    """The rule of C2 for two ways to train, each by precision and share of copies of its models, (T,) and (T,)."""
    copies, precision = (interval(other[i] - usual[i], level) for i in (1, 0))
    if not interval(usual[1])[0] > 0.01:
        verdict = "needs data or scale"
    elif copies[1] < 0:
        verdict = "reproduced" if precision[0] > -WORSE else "trend only"
    else:
        verdict = "not reproduced"
    return Compared(verdict, copies, precision)
