"""What the rules rest on, from `Results`; the chapter draws and prints these too."""

import math

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.learning_rate.study.results import Edge, Gaps, Memory, Smoothness, Theorem

Estimate = tuple[float, tuple[float, float]]  # a mean over runs and its interval

_FLAT = 1e-4  # roughness over that of s*, below which a network has no kink between the points


def power(values: Tensor, over: list[float] | Tensor) -> Estimate:
    """Power of `over` (A,) in each run of values (A, R), by least squares on logarithms: mean and interval."""
    powers = slopes(torch.log10(values.double()), over)
    return float(powers.mean()), metrics.mean_interval(powers)


def slopes(values: Tensor, over: list[float] | Tensor) -> Tensor:
    """Least-squares slope of values (A, R) over log10 of `over`, in each run (R,); NaNs are left out, fewer than three
    others give 0."""
    a = torch.log10(torch.as_tensor(over).double()).reshape(len(values), -1).expand_as(values)
    known = ~values.isnan()
    count = known.sum(0).clamp_min(1)
    x = torch.where(known, a - torch.where(known, a, 0.0).sum(0) / count, 0.0)
    y = torch.where(known, values, 0.0)
    slope = (x * y).sum(0) / x.square().sum(0).clamp_min(1e-30)
    return torch.where(known.sum(0) < min(3, len(values)), 0.0, slope)


def reversible(results: Memory, arm: str) -> Tensor:
    """Excess risk at the rate minus that of the copy that was annealed, (E, R)."""
    return results.excess[arm][1] - results.excess[arm][2]


def irreversible(results: Memory, arm: str) -> Tensor:
    """Excess risk after annealing, less that of the smallest rate, (E, R)."""
    return results.excess[arm][2] - results.excess[arm][2, :1]


def remembered(results: Memory) -> Tensor:
    """Memorized fraction of the annealed copy minus at the rate, (E, R)."""
    return results.fraction[1] - results.fraction[0]


def agreeing(results: Edge, arm: str = "full batch") -> metrics.Count:
    """Runs that leave their minimum at no multiple of the edge below 1 and at every one above it."""
    left = results.leaving.rise[arm] > 1.5  # (rho, R)
    below = torch.tensor(results.leaving.rho) < 1
    agree = ~left[below].any(0) & left[~below].all(0)
    return metrics.Count(int(agree.sum()), len(agree))


def settled(results: Edge, arm: str) -> Estimate:
    """Where sharpness settles in units of the edge: the geometric mean at the rates that settle, last three looks."""
    optimiser = "Adam" if arm.startswith("Adam") else "SGD"
    at = [results.rates[optimiser].index(rate) for rate in results.settled[optimiser]]
    logs = results.sharpness[arm][-3:, at].double().clamp_min(1e-6).log().mean((0, 1))  # (R,)
    low, high = metrics.mean_interval(logs)
    return math.exp(float(logs.mean())), (math.exp(low), math.exp(high))


def at_edge(interval: tuple[float, float]) -> bool:
    """Whether an interval lies within a factor of 1.5 of the edge."""
    return interval[0] > 1 / 1.5 and interval[1] < 1.5


def gap_rises(results: Gaps) -> dict[str, Estimate]:
    """What the rate adds to the missing fraction of s*, per doubling of the smallest gap."""
    found = {}
    for name, values in {"spacing": results.spacings, "pairs": results.openings}.items():
        rises = math.log10(2) * slopes(results.missing[name] - results.control[name], values)
        found[name] = float(rises.mean()), metrics.mean_interval(rises)
    return found


def factors(results: Theorem) -> dict[str, tuple[int, Tensor, Tensor | list[float]]]:
    """By factor: its power in the theorem's bound, the excess risk at the middle multiple and above the threshold
    (2, values, R), and the values. sigma varies with A sigma^2 fixed, so that A^-4 sigma^-4 is sigma^4."""
    levels = torch.tensor(results.levels)
    sigmas = (levels / (1 + levels**2).sqrt()).double()
    stated = {"n": 5, "Delta": 3, "A": -4}
    found: dict[str, tuple[int, Tensor, Tensor | list[float]]] = {
        "sigma": (4, results.relative[[1, -1]].transpose(1, 2) / sigmas[:, None] ** 2, sigmas)
    }
    for name, one in results.factors.items():
        found[name] = (stated[name], one.excess, one.values)
    return found


def roughness(results: Smoothness) -> Tensor:
    """Roughness at the rate over that of the initial network at the lowest level, NaN where it is flat, (E, R)."""
    here = results.rough[1, :, :, -1].double()
    return torch.where(here < _FLAT, torch.nan, here) / results.rough[0, :, :, -1]


def kept(results: Smoothness) -> list[int]:
    """The places of the rates at which nine units in ten are left, on average over runs."""
    return (results.inside.mean(1) >= 0.9).nonzero()[:, 0].tolist()


def roughness_power(results: Smoothness, at: list[int]) -> Estimate:
    """The power of eta in `roughness` over the rates at these places."""
    powers = slopes(torch.log10(roughness(results)[at]), [results.rates[e] for e in at])
    return float(powers.mean()), metrics.mean_interval(powers)


def flat(results: Smoothness) -> Tensor:
    """Fraction of runs whose score is flat at the lowest level at the rate, (E,)."""
    return (results.rough[1, :, :, -1] < _FLAT).double().mean(1)


def star_power(results: Smoothness) -> float:
    """The power of sigma / mu in the roughness of s*, between the two lowest levels measured."""
    return float(torch.log2(torch.tensor(results.star[-2]) / results.star[-1]))
