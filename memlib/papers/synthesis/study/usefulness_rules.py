"""When R8, R11 and R12 count as reproduced: pure functions of the results. Protocol quotes their docstrings."""

import torch
from scipy.optimize import brentq
from torch import Tensor

from memlib import membership
from memlib.claim import Claim
from memlib.papers.synthesis.study.attributes import Attribute
from memlib.papers.synthesis.study.fine_tuning import crossed
from memlib.papers.synthesis.study.fine_tuning_rules import crossed_within
from memlib.papers.synthesis.study.measures import difference
from memlib.papers.synthesis.study.usefulness import (
    AUGMENTED,
    BOTH,
    MATCHED,
    NOISY,
    PLAINLY,
    REAL,
    SHIFTS,
    SYNTHETIC,
    TWICE,
    Utility,
)  # fmt: skip

POINT = 0.01  # one point of accuracy
LEVEL = 0.05  # of all shifts together
CLOSED = 0.45  # of the gap between base and real training; the paper's figures close .79, .46 and .75


def r8(found: dict[str, Attribute]) -> Claim:
    """R8, on three facial attributes, synthetic training comes within reach of real training.

    Accuracy on people whom no other part has. The gap is real training less training on the base's sets; the share that
    ours closes is compared with .45, the least of the paper's three. *Needs data or scale* unless every attribute has
    such a gap (interval over networks and faces above 0). *Reproduced* if ours closes more than that share in every
    attribute (interval of the gain less .45 of the gap, paired, above 0). *Not reproduced* if it closes less in one
    (interval below 0). *Trend only* if ours beats the base in every attribute (interval above 0). Else *needs data or
    scale*.
    """
    gaps, gains, beyond = {}, {}, {}
    figure: dict[str, float] = {}
    for name, one in found.items():
        real, base, ours = (cells.double() for cells in (one.real, one.base, one.ours))
        gap, gain = real - base, ours - base
        gaps[name], gains[name] = crossed(gap), crossed(gain)
        beyond[name] = crossed_within(gain - CLOSED * gap)
        figure |= {f"{name}, {arm}": float(x.mean()) for arm, x in (("real", real), ("base", base), ("ours", ours))}
        figure |= {f"{name}, majority": one.majority, f"{name}, share closed": float(gain.mean() / gap.mean())}
    if any(low <= 0 for low, _ in gaps.values()):
        verdict = "needs data or scale"
    elif all(low > 0 for low, _ in beyond.values()):
        verdict = "reproduced"
    elif any(high < 0 for _, high in beyond.values()):
        verdict = "not reproduced"
    else:
        verdict = "trend only" if all(low > 0 for low, _ in gains.values()) else "needs data or scale"
    least = min(beyond, key=lambda name: beyond[name][0])
    n = len(found[least].real)
    return Claim("R8", verdict, figure, n, beyond[least], f"gain over the base less .45 of the gap: {least}")


def r11(found: Utility) -> Claim:
    """R11, real data with as many synthetic ones beat real data alone, at equal steps.

    Accuracy on test images, paired over pipelines and images. *Needs data or scale* unless twice the real data beat
    real data (interval above 0): else more images are of no use. *Reproduced* if both beat real data (interval above
    0). *Not reproduced* if the interval of that gain ends below one point. Else *needs data or scale*. Real data moved
    a little at random stand beside it: they tell what costs no generator.
    """
    right = {arm: by_change[PLAINLY] for arm, by_change in found.right.items()}
    gain, interval = _gain(right[BOTH], right[REAL])
    most, (room, _) = _gain(right[TWICE], right[REAL])
    verdict = "needs data or scale"
    if room > 0 and interval[0] > 0:
        verdict = "reproduced"
    elif room > 0 and interval[1] < POINT:
        verdict = "not reproduced"
    figure = {
        "real": float(right[REAL].double().mean()),
        "synthetic": float(right[SYNTHETIC].double().mean()),
        "gain of both": gain,
        "gain of augmentation": _gain(right[AUGMENTED], right[REAL])[0],
        "gain of twice the real data": most,
    }
    return Claim("R11", verdict, figure, len(right[REAL]) // 2, interval, "accuracy gained by adding synthetic data")


def r12(found: Utility) -> Claim:
    """R12, on changed test images, training on synthetic data can beat training on real data.

    Five changes, all reported: rotation, shift, noise, blur, thickness. A change counts as won if synthetic training is
    better than real training, and better than real training on images made as smooth or as rough as the synthetic ones,
    else the gain is smoothing: the larger of the two p-values, two-sided, from intervals over pairs and images, with
    Holm's correction over the five at 5 % in all. *Reproduced* if one is won. *Trend only* if one is won against real
    training alone (Holm). *Not reproduced* if the interval of synthetic minus real ends below one point for every
    change. Else *needs data or scale*.
    """
    apart, ends, against_real, against_both = {}, {}, [], []
    for name in SHIFTS:
        synthetic, real, like = (found.right[arm][name] for arm in (SYNTHETIC, REAL, MATCHED))
        apart[name], ends[name] = _gain(synthetic, real)
        own = p_above(synthetic, real)
        against_real.append(own)
        against_both.append(max(own, p_above(synthetic, like)))
    if holm(against_both):
        verdict = "reproduced"
    elif holm(against_real):
        verdict = "trend only"
    else:
        verdict = "not reproduced" if all(high < POINT for _, high in ends.values()) else "needs data or scale"
    best = max(SHIFTS, key=lambda name: apart[name])
    figure = {f"synthetic minus real, {name}": value for name, value in apart.items()}
    noisy = _gain(found.right[NOISY][best], found.right[REAL][best])[0]
    figure |= {"changes won": float(holm(against_both)), f"real, noisy, minus real, {best}": noisy}
    n = len(found.right[REAL][best]) // 2
    return Claim("R12", verdict, figure, n, ends[best], f"accuracy, synthetic minus real, at its best: {best}")


def p_above(a: Tensor, b: Tensor) -> float:
    """The two-sided p-value of no difference of (T, M) answers, and 1 where a is not better: one minus the level of the
    widest `membership.crossed_interval` that excludes 0."""
    cells = a.double() - b.double()
    if float(cells.mean()) <= 0:
        return 1.0
    everywhere = torch.ones_like(a, dtype=torch.bool)

    def low(p: float) -> float:
        return membership.crossed_interval(cells, everywhere, 1 - p, (-1, 1))[0]

    if low(1e-6) > 0:
        return 1e-6
    if low(0.999) <= 0:
        return 1.0
    root = brentq(low, 1e-6, 0.999, xtol=1e-6)
    assert isinstance(root, float)  # SciPy returns a pair only with full_output=True
    return root


def holm(p: list[float]) -> int:
    """How many hypotheses Holm's step-down procedure rejects at 5 % in all. Holm 1979."""
    count = 0
    for rank, value in enumerate(sorted(p)):
        if value > LEVEL / (len(p) - rank):
            break
        count += 1
    return count


def _gain(a: Tensor, b: Tensor) -> tuple[float, tuple[float, float]]:
    return difference(a, b, torch.ones_like(a, dtype=torch.bool))
