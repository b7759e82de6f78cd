"""When a claim counts as reproduced: pure functions of the results. The protocol page quotes their docstrings.

The unit is a pair of models, whose training sets are complements: intervals run over pairs, with Student's quantile.
"""

from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.loop.study.results import Frontier, Loop, Results, by_pair
from memlib.papers.loop.study.rounds import SGU

LEFT = 0.1  # of what the original gives away: a model that gives away less than this more than a retrained one stopped
WORSE = 0.1  # precision that may be lost

_ORDER = ("reproduced", "trend only", "needs data or scale", "not reproduced")


def verdicts(results: Results) -> list[Claim]:
    """The verdict on each claim of the groups that were run."""
    found = []
    if results.loop is not None:
        found.append(c1(results.loop))
    if results.frontier is not None:
        found.append(c2(results.frontier))
    return found


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean over pairs, of (T,) values in [-1, 1]."""
    return metrics.mean_interval(by_pair(values), level, (-1, 1))


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
    judged = {kind: _c1(one) for kind, one in found.items()}
    kind, (verdict, interval_, text) = max(judged.items(), key=lambda item: _ORDER.index(item[1][0]))
    figure = {
        f"{name}: {arm}": float(answers.share(one.gone).mean())
        for name, one in found.items()
        for arm, answers in one.arms.items()
    }
    return Claim("C1", verdict, figure, len(found[kind].gone) // 2, interval_, text)


def _c1(loop: Loop) -> tuple[str, tuple[float, float], str]:
    """Verdict, deciding interval and sentence for one kind of forgetting."""
    share = {arm: answers.share(loop.gone) for arm, answers in loop.arms.items()}
    original, retrained = share["original"], share["retrained"]
    known = interval(original - retrained)
    if not known[0] > 0:
        return "needs data or scale", known, "the original does not copy what is to be forgotten more than chance does"
    level, best = 1 - 0.05 / len(SGU), None
    for arm in SGU:
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
        if kept and less[1] < 0 and best is None:
            best = ("trend only", left, said)
    return best or ("not reproduced", left, f"{said}; or its samples are worse")


def c2(found: Frontier) -> Claim:
    """C2, a larger learning rate leaves less to extract at equal quality.

    Each model is stopped at the look at which its precision is highest among one half of the held-out images, and
    judged among the other half. *Needs data or scale* unless the usual rate copies members in more than 1 % of samples
    (lower end), the rate at which held-out images pass for copies. *Reproduced* if the large rate copies less (interval
    of the paired difference below 0) and its precision is less than .1 lower (lower end of the paired difference above
    -.1). *Trend only* if it copies less. Otherwise *not reproduced*.
    """
    (good, share), (usual_good, usual) = found.stopped(found.large), found.stopped(found.usual)
    less = interval(share - usual)
    kept = interval(good - usual_good)[0] > -WORSE
    if not interval(usual)[0] > 0.01:
        verdict = "needs data or scale"
    elif less[1] < 0:
        verdict = "reproduced" if kept else "trend only"
    else:
        verdict = "not reproduced"
    figure = {
        f"rate {rate:g}: {name}": float(value.mean())
        for rate in sorted(found.share)
        for name, value in zip(("precision", "copies"), found.stopped(rate), strict=True)
    }
    text = (
        f"stopped where precision is best, {float(share.mean()):.1%} of samples are copies at the rate "
        f"{found.large:g}, and {float(usual.mean()):.1%} at {found.usual:g}"
    )
    return Claim("C2", verdict, figure, len(share) // 2, less, text)
