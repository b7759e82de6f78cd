"""Sweeps on the line: every rate, run and noise level of an arm trained as one stack.

What a member sees depends on its run's key and on the step alone, so runs of one key share points, initial weights and
batches across arms: comparisons are paired by run. `key` is 1000 seed + 500 on the report half.
"""

from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from memlib.papers.learning_rate.descent import descend
from memlib.papers.learning_rate.fixed_level import (
    Problem,
    excess_risk,
    minibatches,
    problem,
    quadrature,
    zero_score_risk,
)
from memlib.papers.learning_rate.shallow import TwoLayer, two_layer
from memlib.random import keyed


@dataclass(frozen=True)
class Sweep:
    """A trained sweep over rates E, runs R and noise levels K, its E R K members in that order.

    excess: E(s - s*)^2 over R_n(0) at each look, (looks, E, R, K). alive: which did not diverge, (E, R, K).
    w1, b, w2: the networks, (E R K, ...). problem: what they learnt.
    """

    excess: Tensor
    alive: Tensor
    w1: Tensor
    b: Tensor
    w2: Tensor
    problem: Problem

    @property
    def net(self) -> TwoLayer:
        """The networks as one stack."""
        return TwoLayer(self.w1, self.b, self.w2)


@dataclass(frozen=True)
class Network:
    """How a network of a sweep starts and what holds it; the last two in units of 1 / sigma^2."""

    width: int
    start: float
    bound: float


def row(keys: Tensor, n: int, spacing: float = 1.0) -> Tensor:
    """Training points of the runs with these keys (R,), a row with a little disorder each, (R, n, 1)."""
    nudge = torch.stack([torch.rand(n, generator=keyed(int(key), -2)) for key in keys]) - 0.5
    return (spacing * (torch.arange(n) - (n - 1) / 2 + 0.3 * nudge))[..., None]


def pairs(keys: Tensor, gap: float) -> Tensor:
    """Two pairs of points about -1 and 1, `gap` apart up to a twentieth, for runs with these keys (R,): (R, 4, 1)."""
    nudge = 0.1 * (torch.stack([torch.rand(4, generator=keyed(int(key), -2)) for key in keys]) - 0.5)
    half_gap = gap / 2 * torch.tensor([-1.0, 1.0, -1.0, 1.0]) * (1 + nudge)
    return (torch.tensor([-1.0, -1.0, 1.0, 1.0]) + half_gap)[..., None]


def noise_levels(lowest: float, count: int) -> Tensor:
    """Levels sigma / mu from 4 down to `lowest`, evenly spaced on a logarithmic scale, (L,)."""
    return torch.logspace(0.6, torch.log10(torch.tensor(lowest)), count)


def at_level(points: Tensor, level: Tensor) -> Problem:
    """The problem of points (M, n, d) at noise levels sigma / mu (M,)."""
    return problem(points, (level / (1 + level**2).sqrt()).to(points.device))


def members(*lengths: int) -> tuple[Tensor, ...]:
    """The index of each member of a stack in each of its factors, the last running fastest: (M,) for each length."""
    return tuple(torch.cartesian_prod(*(torch.arange(length) for length in lengths)).T)


def sweep(
    points: Tensor,
    keys: Tensor,
    rates: list[float],
    levels: Tensor,
    network: Network,
    steps: int,
    batch: int,
    looks: tuple[int, ...] = (),
) -> Sweep:
    """Train rates x runs x levels together.

    Arguments:
        points: of each run, (R, n, 1), on the device that trains.
        keys: the runs' names, (R,).
        levels: sigma / mu, (K,).
        batch: noisy points in a step; 0 is the full batch, by quadrature.
        looks: steps at which the excess risk is measured, ascending; the end is always one.
    """
    lengths = (len(rates), len(points), len(levels))
    e, r, k = members(*lengths)
    stack = at_level(points[r], levels[k])
    reach = float(points.abs().max()) + 0.5
    net = two_layer(keys[r], network.width, reach=reach, scale=network.start / stack.sigma**2).to(stack.points)
    whole = quadrature(stack)
    batches = minibatches(stack, keys[r], batch, steps) if batch else repeat(whole, steps)
    eta = torch.tensor(rates)[e].to(stack.sigma)
    seen = []
    for progress in descend(net, stack, eta, batches, bound=network.bound / stack.sigma**2, at=looks):
        relative = excess_risk(net, stack, whole) / zero_score_risk(stack)
        seen.append((progress.alive.view(lengths).cpu(), relative.view(lengths).cpu()))
    alive, excess = zip(*seen, strict=True)
    return Sweep(torch.stack(excess), alive[-1], net.w1, net.b, net.w2, stack)


def joined(parts: list[Sweep]) -> Sweep:
    """Sweeps over the same runs and levels as one, rate after rate."""
    if len(parts) == 1:
        return parts[0]
    weights = [torch.cat([getattr(part, name) for part in parts]) for name in ("w1", "b", "w2")]
    stack = Problem(*(torch.cat(tensors) for tensors in zip(*(part.problem for part in parts), strict=True)))
    excess = torch.cat([part.excess for part in parts], 1)
    return Sweep(excess, torch.cat([part.alive for part in parts]), *weights, problem=stack)
