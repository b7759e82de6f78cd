"""When R2 and R6 count as reproduced: pure functions of the results. The protocol page quotes their docstrings."""

from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.synthesis.study.ablation import FACTORS, Ablation, effect
from memlib.papers.synthesis.study.fine_tuning import NONE, OTHER, STATED, Regime, crossed

SHARE_OF_GAP = 0.1  # of what is missing to a real sample: a smaller gain is called none


def r2(found: dict[str, Regime]) -> Claim:
    """R2, the matching term narrows the gap between real and generated data (eq. 21, gamma = 0.05).

    The regime named beforehand is the paper's: few steps of low-rank adapters on a base of another domain. The printed
    term at .05 is compared with no term, paired by network. A gain is less MMD^2 to held-out real images (interval over
    networks), and more of them named rightly by a classifier trained on the samples (interval over networks and
    images). *Reproduced* if both intervals are above 0. *Not reproduced* if each is below a tenth of the gap between no
    term and a real sample of equal size, paired again. *Needs data or scale* otherwise, and where
    there is no such gap (its interval includes 0 in one of the two). The other regime and weights decide nothing.
    """
    regime = found[OTHER]
    none, term, floor = regime.arms[NONE], regime.arms[STATED], regime.floor
    nearer, better = none.mmd2 - term.mmd2, term.right.double() - none.right.double()
    gap, lost = none.mmd2 - floor.mmd2, floor.right.double() - none.right.double()
    gains = metrics.mean_interval(nearer), crossed(better)
    short = metrics.mean_interval(nearer - SHARE_OF_GAP * gap), crossed_within(better - SHARE_OF_GAP * lost)
    if metrics.mean_interval(gap)[0] <= 0 or crossed(lost)[0] <= 0:
        verdict = "needs data or scale"
    elif all(low > 0 for low, _ in gains):
        verdict = "reproduced"
    elif all(high < 0 for _, high in short):
        verdict = "not reproduced"
    else:
        verdict = "needs data or scale"
    share = regime.end[..., 1].mean(1) / regime.end[..., 0].mean(1)
    figure = {
        "gain in MMD2": float(nearer.mean()),
        "gap in MMD2": float(gap.mean()),
        "gain in accuracy": float(better.mean()),
        "gap in accuracy": float(lost.mean()),
        "largest share of the residual in its mean": float(share.max()),
    }
    return Claim("R2", verdict, figure, len(nearer), gains[0], "gain in MMD2 at gamma = 0.05; interval over networks")


def r6(found: Ablation) -> Claim:
    """R6, a latent prior, visual guidance and matching each help.

    The main effect of each on accuracy: with it less without it, in the mean of the four combinations of the other two,
    paired by network (interval over networks and test images). *Needs data or scale* unless classifiers of real data
    beat those of sets with none of the three (interval above 0): else there is nothing to gain. *Reproduced* if all
    three intervals are above 0. *Not reproduced* if one is below 0. *Trend only* if one or more are above 0, the others
    include it. Else *needs data or scale*.
    """
    cells = {name: effect(found, k) for k, name in enumerate(FACTORS)}
    ends = {name: crossed(one) for name, one in cells.items()}
    if crossed(found.real.double() - found.arms["000"].double())[0] <= 0:
        verdict = "needs data or scale"
    elif all(low > 0 for low, _ in ends.values()):
        verdict = "reproduced"
    elif any(high < 0 for _, high in ends.values()):
        verdict = "not reproduced"
    else:
        verdict = "trend only" if any(low > 0 for low, _ in ends.values()) else "needs data or scale"
    figure = {f"effect of {name}": float(one.mean()) for name, one in cells.items()}
    figure |= {"none of the three": float(found.arms["000"].double().mean())}
    figure |= {f"all three, guidance {x:g}": float(one.double().mean()) for x, one in found.by_guidance.items()}
    least = min(FACTORS, key=lambda name: ends[name][0])
    return Claim("R6", verdict, figure, len(found.real), ends[least], f"accuracy gained by {least}, the least of three")


def crossed_within(cells: Tensor) -> tuple[float, float]:
    """`fine_tuning.crossed` for cells (E, M) between -2 and 2."""
    low, high = crossed(cells / 2)
    return 2 * low, 2 * high
