"""When a claim of the Gaussian chapter counts as reproduced. One function a claim; its docstring is the rule."""

from memlib.claim import Claim
from memlib.metrics import mean_interval
from memlib.papers.gaussian.study.distinct import FIRST, Distinct
from memlib.papers.gaussian.study.divergence import Divergence
from memlib.papers.gaussian.study.labels import Labels
from memlib.papers.gaussian.study.memorizer import Memorizer
from memlib.papers.gaussian.study.unlearning import Unlearning, bits

MODES = ("outer mode", "middle mode")  # the labels that follow the modes


def g1(found: Divergence) -> Claim:
    """*Reproduced* if, at each of eight variances, the closed form equals the divergence that torch computes to a
    relative error of 1e-12, and a Monte Carlo average to within three standard errors; otherwise *not reproduced*.
    This is a check of arithmetic. It does not ask whether the sum is a good measure of copying.
    """
    agree = float(((found.closed - found.torchs) / found.torchs).abs().max()) < 1e-12
    off = float(((found.estimate - found.closed) / found.error).abs().max())
    return Claim(
        "G1",
        "reproduced" if agree and off < 3 else "not reproduced",
        figure=off,
        n=found.n_draws,
        text="largest gap between closed form and Monte Carlo, in standard errors, over eight variances",
    )


def g2(found: Labels) -> Claim:
    """*Reproduced* if, for each of the four labels, the ratio of the two measures comes to within 0.001 of the
    theorem's limit at a variance of 1e-8, and no limit is above 1. *Trend only* if the ratios meet their limits and the
    two labels that follow the modes have limits below 1. Otherwise *not reproduced*.
    """
    limits = found.limits
    met = all(abs(float(found.ratios[name][0]) - limit) < 1e-3 for name, limit in limits.items())
    helped = max(limits[name] for name in MODES) < 1
    return Claim(
        "G2",
        "reproduced" if met and max(limits.values()) <= 1 else "trend only" if met and helped else "not reproduced",
        figure=limits,
        n=found.n,
        text="limit of the ratio for each label: below 1, the label lowers the measure",
    )


def g4(found: Distinct) -> Claim:
    """*Reproduced* if, at each of eight numbers of samples, both the count of samples that are members and the count of
    distinct members lie within four standard deviations of their formulas; otherwise *not reproduced*. The
    extrapolation from the first 500 samples is shown and decides nothing.
    """
    rate, deviation = found.probability.sum(), found.deviation
    copied = ((found.copied - found.budgets * rate) / (found.budgets * rate * (1 - rate)).sqrt()).abs().max()
    distinct = ((found.distinct - found.formula) / deviation).abs().max()
    later = int((found.budgets <= 4 * FIRST).sum()) - 1  # the last budget up to 2,000 samples
    figure = {
        "N_mem, sd": float(copied),
        "N_umem, sd": float(distinct),
        "extrapolated / counted at 4 N_G": float(found.chao[later] / found.distinct[later]),
    }
    return Claim(
        "G4",
        "reproduced" if max(copied, distinct) < 4 else "not reproduced",
        figure=figure,
        n=int(found.budgets[-1]),
        text="largest gaps between count and formula over eight budgets, and a run of 500 extrapolated to 2,000",
    )


def g5(found: Unlearning) -> Claim:
    """The obtuse arm is compared with retraining without the middle mode (*unseen*), paired by seed, by Student's 95 %
    intervals over seeds. *Trend only* if it generates a smaller fraction of samples near the middle mode and finds the
    points of that mode less likely, both by their intervals. *Reproduced* if in addition its negative log-likelihood
    of these points, in bits per dimension plus 8, is above 30, near the 39.01 of the paper. Otherwise *not reproduced*.
    """
    gap = found.column("obtuse", "middle") - found.column("unseen", "middle")
    fewer = mean_interval(gap, bounds=(-1, 1))
    unlikelier = mean_interval(found.column("obtuse", "forgotten") - found.column("unseen", "forgotten"))
    ordered = fewer[1] < 0 < unlikelier[0]
    near = bits(found.column("obtuse", "forgotten").mean()) > 30
    return Claim(
        "G5",
        "reproduced" if ordered and near else "trend only" if ordered else "not reproduced",
        figure=float(gap.mean()),
        interval=fewer,
        n=len(gap),
        text=f"fraction near the middle mode, obtuse (alpha {found.alpha:g}, weight 1/(0.1+sigma^2)) minus retrained",
    )


def g6(found: Memorizer) -> Claim:
    """*Reproduced* if more than 99 % of the samples of the exact minimiser lie within a millionth of a training point,
    and fewer than 1 % of the samples of the mixture that the points came from, both by the ends of exact binomial 95 %
    intervals; otherwise *not reproduced*.
    """
    copies, control = found.copies["memorizer"], found.copies["mixture itself"]
    interval, limit = copies.interval(), control.interval()
    return Claim(
        "G6",
        "reproduced" if interval[0] > 0.99 and limit[1] < 0.01 else "not reproduced",
        figure=copies.rate,
        interval=interval,
        n=copies.n,
        text="fraction of samples within 1e-6 of a training point, from the exact minimiser sampled to sigma 0",
    )
