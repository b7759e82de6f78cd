"""S8: from what the networks of each labelling copy to a verdict, and the table behind it."""

from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.side.study.training import ARMS, TrainedArms

FEWEST = 8  # pairs of networks
ROOM = (0.02, 0.95)  # the mean fraction of the unconditional arm between which a difference can be seen


def s8(found: TrainedArms) -> Claim:
    """The outcome is the fraction of a network's samples that copy a member: cosine and distance pass together at a
    joint rate of 1 % of the calibration images. Each arm with labels (class, random, one an image) is compared with the
    unconditional arm by Student's interval of the differences, paired by deal and initial weights. An arm copies more
    (less) if its interval lies above (below) 0, at Holm's levels for 95 % over the three arms.

    Needs data or scale, whatever the differences: fewer than 8 pairs, or a mean fraction of the unconditional arm below
    .02 (hardly more than chance passes) or above .95 (no room above it). Reproduced: all three arms copy more. Trend
    only: one or two copy more, and none less. Else not reproduced. UMS, EMM, the ratio of theorem 1 and the samples
    that pass for copies of non-members are shown and decide nothing.
    """
    apart = differences(found)
    signs, plain = holm(apart), float(found.fraction[0].mean())
    pairs = found.copied.shape[1]
    more = [arm for arm, sign in signs.items() if sign > 0]
    if pairs < FEWEST or not ROOM[0] <= plain <= ROOM[1]:
        verdict = "needs data or scale"
    elif len(more) == len(signs):
        verdict = "reproduced"
    else:
        verdict = "trend only" if more and min(signs.values()) == 0 else "not reproduced"
    return Claim(
        "S8",
        verdict,
        figure=dict(zip(ARMS, found.fraction.mean(1).tolist(), strict=True)),
        interval=metrics.mean_interval(apart["class"], bounds=(-1, 1)) if pairs > 1 else None,
        n=pairs,
        text=f"fraction of {found.samples} samples that copy one of {found.members} members, mean over pairs; interval "
        f"of class less unconditional; labels with which networks copy more: {', '.join(more) or 'none'}",
    )


def differences(found: TrainedArms) -> dict[str, Tensor]:
    """Each labelled arm's copied fraction less that of the unconditional arm, (P,) by arm."""
    return {arm: found.fraction[i] - found.fraction[0] for i, arm in enumerate(ARMS) if i}


def holm(apart: dict[str, Tensor], level: float = 0.95) -> dict[str, int]:
    """The sign of each mean of differences (P,) in [-1, 1], 0 where it is not known, by Holm's step-down procedure.

    The chance of one wrong sign or more is 1 - level, however many differences there are. Holm 1979, Scand. J. Stat.
    6:65. Student's interval at level 1 - a excludes 0 where the two-sided p-value is below a.
    """
    signs, open_ = dict.fromkeys(apart, 0), set(apart)
    while open_ and len(next(iter(apart.values()))) > 1:
        strict = 1 - (1 - level) / len(open_)
        ends = {name: metrics.mean_interval(apart[name], strict, (-1, 1)) for name in open_}
        decided = {name for name, (low, high) in ends.items() if low > 0 or high < 0}
        if not decided:
            break
        signs |= {name: 1 if ends[name][0] > 0 else -1 for name in decided}
        open_ -= decided
    return signs


def of_training(found: TrainedArms) -> list[list[str]]:
    """Each arm's theorem ratio, copies, distinct members and EMM: means over pairs, with 95 % intervals.

    The last row compares the two arms with ten labels; it was added after looking and decides nothing.
    """
    head = ["labels", "ratio of eq. 50", "AMS", "less unconditional", "UMS", "EMM", "copies of non-members"]
    rows, most = [head], found.members
    ums, emm = found.distinct.double() / found.samples, found.emm.double()
    for i, arm in enumerate(ARMS):
        less = mean_of(found.fraction[i] - found.fraction[0], 3, (-1, 1)) if i else ""
        open_end = "at least " if (found.above[i] == 0).any() else ""
        rows.append(
            [
                arm,
                f"{float(found.ratio[i].mean()):.2f}",
                mean_of(found.fraction[i], 3, (0, 1)),
                less,
                mean_of(ums[i], 3, (0, min(1, most / found.samples))),
                open_end + mean_of(emm[i], 0, (0, most)),
                f"{int(found.non_members[i].sum())} of {found.samples * found.copied.shape[1]}",
            ]
        )
    ratio, ams, ums, emm = (values[1] - values[2] for values in (found.ratio, found.fraction, ums, emm))
    less = mean_of(ams, 3, (-1, 1)), "", mean_of(ums, 3, (-1, 1)), mean_of(emm, 0, (-most, most)), ""
    return [*rows, ["class less random", f"{float(ratio.mean()):.2f}", *less]]


def mean_of(values: Tensor, digits: int, bounds: tuple[float, float]) -> str:
    """The mean of values (P,) with its 95 % interval, in words; the mean alone for one value."""
    text = f"{float(values.mean()):.{digits}f}"
    if len(values) < 2:
        return text
    low, high = metrics.mean_interval(values, bounds=bounds)
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
