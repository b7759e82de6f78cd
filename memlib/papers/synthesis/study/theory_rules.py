"""When the claims of the paper's theory and of its tables count as reproduced: R1, R3, R9 and R13.

Pure functions of the results, as in `rules`; the protocol page quotes their docstrings. Intervals are of 95 %.
"""

from memlib import metrics
from memlib.claim import Claim
from memlib.metrics import Count
from memlib.papers.synthesis.study.printed import Printed
from memlib.papers.synthesis.study.theory_results import Bound, Gap, Kernel

WITHIN = 0.05  # of the closed form: an estimate that agrees
REACHED = 1e-3  # of the norm: a function that reaches the supremum
EQUAL = 0.1  # nats: a bound that has reached the density


def r1(found: Kernel) -> Claim:
    """R1, the maximum mean discrepancy is a squared distance between mean embeddings.

    Two Gaussians on a line under a Gaussian kernel, where |mu_T - mu_S|^2 has a closed form. *Reproduced* if the
    interval of the mean unbiased estimate, over independent draws, lies within 5 % of it; and if the supremum of eq. 17
    is |mu_T - mu_S|: the normalised mu_T - mu_S reaches it to .1 %, so does the best sum of kernels of norm 1, and no
    random function of norm 1 exceeds it by more. *Not reproduced* if the supremum is another, or the interval lies
    wholly outside. Else *needs data or scale*. What the linear kernel cannot tell apart is printed and decides nothing.
    """
    low, high = metrics.mean_interval(found.estimates)
    least, most = found.exact * (1 - WITHIN), found.exact * (1 + WITHIN)
    largest = float(found.others.max())
    supremum = all(abs(ratio - 1) <= REACHED for ratio in (found.reached, found.best)) and largest <= 1 + REACHED
    if supremum and least <= low and high <= most:
        verdict = "reproduced"
    elif not supremum or high < least or low > most:
        verdict = "not reproduced"
    else:
        verdict = "needs data or scale"
    figure = {
        "closed form": found.exact,
        "unbiased estimate": float(found.estimates.mean()),
        "biased estimate": float(found.biased.mean()),
        "supremum reached by the witness": found.reached,
        "by the best sum of kernels": found.best,
        "by the best of random functions": largest,
    }
    figure |= {f"equal means, {name}": float(values.mean()) for name, values in found.equal_means.items()}
    return Claim("R1", verdict, figure, len(found.estimates), (low, high), "MMD^2 of two Gaussians, unbiased estimate")


def r3(found: Gap) -> Claim:
    """R3, training and test error differ by no more than a Hoeffding bound for finite classes.

    Sets are drawn from a synthetic law, and in each the largest Test - Train over all rules of a small class is taken.
    *Not reproduced* if it exceeds eq. 14's bound in more than delta = 5 % of draws (interval of the share of draws in
    which the bound holds), or if the gap of the trained classifiers exceeds theirs (interval of either loss). The small
    class must leave a bound below 1. *Reproduced* if the bound holds in 95 % of draws or more (interval) and, for the
    trained classifiers, lies below 1 by eq. 13. *Trend only* if it holds, but is 1 or more for the classifiers, of
    which it then says nothing. Otherwise *needs data or scale*. The gap to real images, which the paper wants and the
    bound is silent on, is printed beside it and decides nothing.
    """
    draws, kept = len(found.largest), int((found.largest <= found.small_sharp).sum())
    low, high = Count(kept, draws).interval()
    fresh = [by_name["train to fresh synthetic"][1] for by_name in found.gaps.values()]
    if high < 1 - found.delta or any(ends[0] > found.printed for ends in fresh):
        verdict = "not reproduced"
    elif low < 1 - found.delta or found.small_sharp >= 1:
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if found.printed < 1 else "trend only"
    figure = {
        "draws in which the small class keeps eq. 14": kept / draws,
        "bound of the small class, eq. 14": found.small_sharp,
        "bound of the small class, eq. 13": found.small_printed,
        "largest gap of the small class": float(found.largest.max()),
        "bound of the classifiers, eq. 14": found.sharp,
        "bound of the classifiers, eq. 13": found.printed,
    }
    for loss, by_name in found.gaps.items():
        for name, (mean, (least, most)) in by_name.items():
            figure |= {f"{name}, {loss} loss (mean, low, high)": [mean, least, most]}
    return Claim("R3", verdict, figure, draws, (low, high), "share of draws in which the bound of a small class holds")


def r9(found: Printed) -> Claim:
    """R9, the printed hyper-parameters and statistics of the data sets suffice to repeat the experiments.

    Every number or word of tables 5 to 8 is compared with the public data sets, with the authors' code and with the
    table's own columns, and what a repetition must set is looked for. *Reproduced* if nothing that it must set is
    missing and no printed value is wrong. *Trend only* if nothing is missing, and each wrong value can be told from
    public knowledge. *Not reproduced* if something is missing, or a wrong value cannot be told. It takes no run, and
    has no interval.
    """
    lost = found.missing + found.lost
    verdict = "not reproduced" if lost else "trend only" if found.wrong else "reproduced"
    figure = {
        "compared": found.compared,
        "printed and not contradicted": found.compared - found.missing - found.wrong,
        "printed wrongly": found.wrong,
        "wrong and not to be told": found.lost,
        "missing": found.missing,
        "released otherwise": found.otherwise,
    }
    return Claim("R9", verdict, figure, found.compared, None, "settings in tables 5 to 8, and what they leave out")


def r13(found: Bound) -> Claim:
    """R13, the training objective bounds the likelihood, in the sense of appendix A.

    The discrete variational bound on -log p(x0), on a mixture of Gaussians on a line. Gap: bound minus the exact -log
    p(x0), over points. Slack: bound of a trained network minus the -log p(x0) of its own chain, integrated, over
    networks. *Not reproduced* if the interval of a gap with the exact denoiser, at any number of levels, or that of the
    slack lies below 0: no bound. *Reproduced* if the slack lies above 0, and the gap with the exact denoiser falls with
    each number of levels and, at the largest, ends below .1 nats (interval): the bound becomes the likelihood. *Trend
    only* if the slack is above 0 and the gap stays above .1 nats (interval). Otherwise *needs data or scale*.
    """
    ends = [metrics.mean_interval(one) for one in found.gaps]
    low, high = metrics.mean_interval(found.slack)
    means = found.gaps.mean(1).tolist()
    falls = all(after < before for before, after in zip(means, means[1:], strict=False))
    if high < 0 or any(one[1] < 0 for one in ends):
        verdict = "not reproduced"
    elif low > 0 and falls and ends[-1][1] < EQUAL:
        verdict = "reproduced"
    elif low > 0 and ends[-1][0] > EQUAL:
        verdict = "trend only"
    else:
        verdict = "needs data or scale"
    fine, coarse = found.network_levels
    figure = {f"gap of the exact denoiser, T = {count}": mean for count, mean in zip(found.levels, means, strict=True)}
    figure |= {
        f"gap of networks, T = {fine}": float(found.networks.mean()),
        f"slack of networks, T = {coarse}": float(found.slack.mean()),
        "networks": len(found.slack),
    }
    text = f"nats; interval of the gap of the exact denoiser at T = {found.levels[-1]}"
    return Claim("R13", verdict, figure, found.gaps.shape[1], ends[-1], text)
