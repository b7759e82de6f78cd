"""G2: does a label lower the measure? And proposition 1 on a toy: is a labelled class less spread than the whole?"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memlib import sample
from memlib.denoiser import Denoiser
from memlib.metrics import theorem_limit
from memlib.noise import karras, seeded
from memlib.papers.gaussian.closed_forms import kl_to_points
from memlib.random import keyed

RESAMPLES = 1000  # bootstrap resamples behind an interval
_BOOTSTRAP = 1_000_003  # the step of the keyed generator, apart from those of training


@dataclass(frozen=True)
class Labels:
    """The ratio of theorem 1 for each label (G2): the measure of a class, conditional over unconditional."""

    n: int  # labelled points
    sizes: dict[str, int]  # points of each class
    variances: Tensor  # (V,): epsilon, the smallest first
    ratios: dict[str, Tensor]  # (V,) for each label
    limits: dict[str, float]  # the limit by the formula of the theorem
    spread: dict[str, tuple[float, float]]  # 95 % bootstrap interval of the limit


@dataclass(frozen=True)
class Latents:
    """The nuclear norm of the covariance of each class's latents over that of all latents; shown, decides nothing."""

    n: int  # latents
    ratios: dict[str, float]
    spread: dict[str, tuple[float, float]]  # 95 % bootstrap interval


def measure(points: Tensor, masks: dict[str, Tensor], seed: int) -> Labels:
    """Compute the ratio over a range of variances and in the limit, for points (n, 2) and (n,) masks by label.

    `together` joins the labels of several sets of points.
    """
    variances = torch.logspace(-8, -0.1, 40)
    whole = _moments(points)
    ratios, limits = {}, {}
    for name, mask in masks.items():
        inside, own = points[mask], _moments(points[mask])
        ratios[name] = torch.stack([_ratio(own, whole, inside, e) for e in variances])
        limits[name] = limit(points, mask)
    spread = {name: interval(theorem_limit(*parts)) for name, parts in resampled(points, masks, seed).items()}
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    return Labels(len(points), sizes, variances, ratios, limits, spread)


def together(one: Labels, other: Labels) -> Labels:
    """The labels of two sets of as many points."""
    parts = ("sizes", "ratios", "limits", "spread")
    return replace(one, **{name: getattr(one, name) | getattr(other, name) for name in parts})


def limit(points: Tensor, mask: Tensor) -> float:
    """The limit of theorem 1 for the class of a (n,) mask among points (n, d)."""
    (mean, covariance), (own_mean, own_covariance) = _moments(points), _moments(points[mask])
    distance = (own_mean - mean).square().sum()
    return float(theorem_limit(own_covariance.trace(), distance, covariance.trace()))


def spread_ratio(points: Tensor, mask: Tensor) -> float:
    """The nuclear norm of the covariance of the class of a (n,) mask over that of all points (n, d)."""
    return float(nuclear_norm(points[mask]) / nuclear_norm(points))


def encode(denoiser: Denoiser, points: Tensor) -> Tensor:
    """Latents of points (n, 2), (n, 2): the probability flow of the denoiser, run upwards from sigma 0.01 to 2."""
    noised = points + 0.01 * seeded(range(len(points)))(points)
    return sample.encode(denoiser, noised, karras(40, 0.01, 2.0)[:-1])


def latents(points: Tensor, masks: dict[str, Tensor], seed: int) -> Latents:
    """Compare the spread of each class with that of all, for latents `points` (n, 2) and (n,) masks."""
    ratios = {name: spread_ratio(points, mask) for name, mask in masks.items()}
    spread = {name: interval(own / whole) for name, (own, _, whole) in resampled(points, masks, seed).items()}
    return Latents(len(points), ratios, spread)


def nuclear_norm(points: Tensor) -> Tensor:
    """The sum of the singular values of the covariance of points (n, d), a scalar."""
    return torch.linalg.svdvals(points.T.cov()).sum()


def resampled(points: Tensor, masks: dict[str, Tensor], seed: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By label: tr S_c, |mu - mu_c|^2 and tr S of RESAMPLES bootstrap resamples, each (RESAMPLES,).

    points: (n, d). masks: (n,) by label; a point keeps its labels. The trace of a covariance is its nuclear norm.
    """
    n = len(points)
    chosen = torch.randint(n, (RESAMPLES, n), generator=keyed(seed, _BOOTSTRAP))
    counts = torch.zeros(RESAMPLES, n).scatter_add_(1, chosen, torch.ones(RESAMPLES, n))
    mean, trace = _weighted(counts, points)
    found = {}
    for name, mask in masks.items():
        own_mean, own_trace = _weighted(counts * mask, points)
        found[name] = own_trace, (own_mean - mean).square().sum(1), trace
    return found


def interval(values: Tensor) -> tuple[float, float]:
    """The central 95 % of values (R,)."""
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def _weighted(counts: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (R, d) and trace of the covariance (R,) of points (n, d) under each row of counts (R, n)."""
    size = counts.sum(1, keepdim=True)
    mean = counts @ points / size
    return mean, (counts @ points.square().sum(1, keepdim=True) / size)[:, 0] - mean.square().sum(1)


def _moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of points (n, d), divided by n: the moments of the points themselves."""
    return points.mean(0), points.T.cov(correction=0)


def _ratio(own: tuple[Tensor, Tensor], whole: tuple[Tensor, Tensor], inside: Tensor, e: Tensor) -> Tensor:
    """The measure over the points of a class, of the conditional model over the unconditional one, a scalar."""
    return kl_to_points(*own, inside, e) / kl_to_points(*whole, inside, e)
