"""When R2 counts as reproduced: pure functions of the results. The protocol page quotes their docstrings."""

from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
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


def crossed_within(cells: Tensor) -> tuple[float, float]:
    """`fine_tuning.crossed` for cells (E, M) between -2 and 2."""
    low, high = crossed(cells / 2)
    return 2 * low, 2 * high
