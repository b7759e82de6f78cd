"""How far a difference can be trusted: ratios of two counts, paired samples, and means over seeds."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from scipy.optimize import brentq
from scipy.stats import chi2
from scipy.stats import t as student
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.counts import Count
from memlib.shapes import Shaped

_CELLS = 1 << 22  # resampled indices held at once


def ratio_interval(a: Count, b: Count, level: float = 0.95) -> tuple[float, float]:
    """Score interval of the ratio of two independent rates, a.rate / b.rate (Koopman 1984, Biometrics 40:513).

    It keeps its level for small counts and stays informative at zero: 20 of 2,000 against 0 of 2,000 has a finite lower
    end and an infinite upper one; 0 against 0 gives (0, inf). If both arms use the same seeds, use `paired_interval` on
    the samples instead.

    Raises:
        Refused: for a count with k > n, which is not a proportion.
    """
    for count in (a, b):
        if count.k > count.n:
            raise Refused(f"{count} is not a proportion, so its ratio has no binomial interval: compare repeated runs")
    limit = float(chi2.ppf(level, 1))

    def excess(log_ratio: float) -> float:
        return _score(a, b, math.exp(log_ratio)) - limit

    # The statistic falls to 0 at the estimate and rises after it; without k the estimate lies at 0 or infinity.
    centre = math.log(a.rate / b.rate) if a.k and b.k else 0.0
    low = math.exp(_root(excess, centre - 40, centre if b.k else 40)) if a.k else 0.0
    high = math.exp(_root(excess, centre if a.k else -40, centre + 40)) if b.k else math.inf
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The root that `function` has between `low` and `high` (Brent's method)."""
    root = brentq(function, low, high)
    assert isinstance(root, float)  # SciPy returns a pair only with full_output=True
    return root


def _score(a: Count, b: Count, ratio: float) -> float:
    """Pearson's chi-square of two counts against the most likely pair of rates with p_a = ratio * p_b."""
    linear = a.n * ratio + a.k + b.n + b.k * ratio
    p_b = 2 * (a.k + b.k) / (linear + math.sqrt(max(linear**2 - 4 * (a.n + b.n) * ratio * (a.k + b.k), 0.0)))
    total = 0.0
    for count, p in ((a, ratio * p_b), (b, p_b)):
        p = min(max(p, 1e-300), 1 - 1e-16)  # a rate of exactly 0 or 1 would divide 0 by 0
        total += (count.k - count.n * p) ** 2 / (count.n * p * (1 - p))
    return total


def paired_interval(
    a: Shaped[Tensor, "..."],
    b: Shaped[Tensor, "..."],
    statistic: Literal["difference", "ratio"] = "difference",
    level: float = 0.95,
    resamples: int = 2000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(a) - mean(b), or of mean(a) / mean(b) (Efron 1979).

    Rows are resampled together, so what both arms have in common cancels. A resample with mean(b) = 0 counts as
    infinite.

    Arguments:
        a, b: (N,), numbers or bools. Row i of both comes from the same seed, image or run.
        statistic: "difference" or "ratio".
        level: the confidence level.
        resamples: the number of bootstrap resamples.
        generator: the random numbers for the resamples; None uses torch's global generator.

    Raises:
        Refused: for values that do not pair up.
    """
    if a.shape != b.shape or a.dim() != 1 or len(a) < 2:
        raise Refused(f"paired values need equal shapes (N,) with N >= 2, not {tuple(a.shape)} and {tuple(b.shape)}")
    if statistic not in ("difference", "ratio"):
        raise Refused(f"a paired statistic is 'difference' or 'ratio', not {statistic!r}")
    rows = torch.stack((a, b), 1).double().cpu()  # (N, 2)
    means = []
    for part in torch.arange(resamples).split(max(1, _CELLS // len(rows))):
        drawn = torch.randint(len(rows), (len(part), len(rows)), generator=generator)
        means.append(rows[drawn].mean(1))
    first, second = torch.cat(means).unbind(1)
    values = first - second if statistic == "difference" else (first / second).nan_to_num(nan=math.inf, posinf=math.inf)
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    # The nearest order statistic: interpolation between a number and infinity is not a number.
    low, high = values.quantile(tail, interpolation="nearest").tolist()
    return low, high


def mean_interval(values: Sequence[float] | Tensor, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few runs.

    The run is the unit here, because results vary from model to model. One count pooled over the samples of all runs
    would claim more than was measured. If all values are equal, both ends are exactly that value.

    Arguments:
        values: (K,), one value for each seed or model.
        level: the confidence level.

    Raises:
        Refused: for fewer than two values.
    """
    values = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    if len(values) < 2:
        raise Refused(f"an interval over runs needs at least 2 runs, not {len(values)}: repeat with another seed")
    if (values == values[0]).all():
        return float(values[0]), float(values[0])  # their mean may differ in the last bit
    half = float(student.ppf((1 + level) / 2, len(values) - 1) * values.std() / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half
