"""What stands behind the claims, as tables of text: kept with a run, and shown by the chapter."""

from memlib.metrics import mean_interval
from memlib.papers.gaussian.study.distinct import Distinct
from memlib.papers.gaussian.study.divergence import Divergence
from memlib.papers.gaussian.study.labels import Labels, Latents
from memlib.papers.gaussian.study.memorizer import Memorizer
from memlib.papers.gaussian.study.unlearning import Unlearning, bits

Rows = list[list[str]]

COPIES = "Samples that are a training point"
RANKING = "The measure of three models, in nats per training point"
LABELS = "Theorem 1: limit of the ratio, by label"
ARMS = "Four ways to train, and two exact denoisers"
OPTIMA = "The exact optimum of the obtuse loss"
LATENTS = "Proposition 1: spread of a class over that of all, by label"
DISTINCT = "Distinct members among the first samples"


def copies(found: Memorizer) -> Rows:
    """Counts with exact 95 % intervals."""
    rows = [["model", "copies", "samples", "fraction", "low", "high"]]
    for name, one in found.copies.items():
        rows.append([name, str(one.k), str(one.n), *_decimals(one.rate, *one.interval(), places=4)])
    return rows


def ranking(found: Divergence) -> Rows:
    """The value and its standard error by model."""
    rows = [["model", "measure", "standard error"]]
    for name, values in found.ranking.items():
        value, error = (one / found.n_points for one in values)
        rows.append([name, f"{value:.0f}", f"{error:.1f}" if error else "exact"])
    return rows


def labels(found: Labels) -> Rows:
    """Limits with 95 % bootstrap intervals."""
    rows = [["label", "points", "ratio at 1e-8", "limit", "low", "high"]]
    for name, limit in found.limits.items():
        values = float(found.ratios[name][0]), limit, *found.spread[name]
        rows.append([name, str(found.sizes[name]), *_decimals(*values, places=3)])
    return rows


def latents(found: Latents) -> Rows:
    """Ratios with 95 % bootstrap intervals."""
    rows = [["label", "ratio", "low", "high"]]
    return rows + [[name, *_decimals(one, *found.spread[name])] for name, one in found.ratios.items()]


def arms(found: Unlearning) -> Rows:
    """Means over seeds; the interval is Student's 95 % interval of the fraction, no lower than 0."""
    rows = [["model", "NLL kept / forgotten", "in bits + 8", "fraction middle", "low", "high"]]
    for arm in found.arms:
        kept, gone, middle = (float(found.column(arm, name).mean()) for name in ("retained", "forgotten", "middle"))
        low, high = mean_interval(found.column(arm, "middle"), bounds=(0, 1))
        rows.append([arm, *_likelihoods(kept, gone), *_decimals(middle, low, high, places=3)])
    for name, one in found.exact.items():
        rows.append([f"{name}, exact", *_likelihoods(one.retained, one.forgotten), f"{one.middle:.3f}", "", ""])
    return rows


def optima(found: Unlearning) -> Rows:
    """The optimum at a few values of alpha."""
    rows = [["alpha", "bits + 8, kept / forgotten", "fraction middle", "thrown out"]]
    for alpha, one in found.optima.items():
        both = " / ".join(_decimals(bits(one.retained), bits(one.forgotten), places=1))
        rows.append([f"{alpha:g}", both, *_decimals(one.middle, one.thrown, places=3)])
    return rows


def distinct(found: Distinct) -> Rows:
    """Counts beside the formula and two extrapolations."""
    rows = [["samples", "formula", "counted", "plug-in from 500", "Chao from 500"]]
    columns = found.budgets, found.formula, found.distinct, found.plug_in, found.chao
    for budget, formula, counted, plug_in, chao in zip(*(one.tolist() for one in columns), strict=True):
        rows.append([str(budget), f"{formula:.1f}", str(counted), *_decimals(plug_in, chao, places=1)])
    return rows


def _likelihoods(kept: float, gone: float) -> list[str]:
    return [" / ".join(_decimals(kept, gone)), " / ".join(_decimals(bits(kept), bits(gone)))]


def _decimals(*values: float, places: int = 2) -> list[str]:
    return [f"{value:.{places}f}" for value in values]
