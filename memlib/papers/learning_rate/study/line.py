"""Sweeps on the line: every rate, run and noise level of an arm trained as one stack, brought slowly to its rate.

What a member sees depends on its run's key and on the step alone, so runs of one key share points, initial weights and
batches across arms: comparisons are paired by run. `key` is 1000 seed + 500 on the report half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from memlib.papers.learning_rate.curvature import sharpness
from memlib.papers.learning_rate.descent import Progress, descend, ramp
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

START = 1e-6  # the rate from which every network is brought to its own, and to which it is annealed
MOMENTS = ("initial", "at the rate", "annealed")
_LOOKS = 8  # in the last sixth of the steps


@dataclass(frozen=True)
class Sweep:
    """Networks over rates E, runs R and noise levels K, at three moments: initial, at their rate, annealed.

    excess: E(s - s*)^2 over R_n(0), (3, E, R, K); at the rate it is the median of eight looks
        at the end.
    silent: the same for the zero function, (E, R, K).
    sharp: m lambda_max in units of 2 / eta, median of the looks at the rate, (E, R, K); empty if not asked for.
    alive: which did not diverge, (E, R, K).
    w1 (M, 1, m), b (3, M, m), w2 (3, M, m, 1): the M = E R K networks.
    problem: what they learnt.
    """

    excess: Tensor
    silent: Tensor
    sharp: Tensor
    alive: Tensor
    w1: Tensor
    b: Tensor
    w2: Tensor
    problem: Problem

    def net(self, moment: int) -> TwoLayer:
        """The networks at one of `MOMENTS`, as one stack."""
        return TwoLayer(self.w1, self.b[moment], self.w2[moment])


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
    rates: Tensor,
    levels: Tensor,
    network: Network,
    steps: int,
    batch: int,
    abrupt: bool = False,
    with_sharpness: bool = False,
) -> Sweep:
    """Train rates x runs x levels together: a third of the steps up from 1e-6, a third at the rate; in the last third
    one copy of every network stays at the rate and another is annealed to 1e-6, on the same batches.

    Arguments:
        points: of each run, (R, n, 1), on the device that trains.
        keys: the runs' names, (R,).
        rates: eta, (E, R, K), or of a shape that expands to it.
        levels: sigma / mu, (K,).
        batch: noisy points in a step; 0 is the full batch, by quadrature.
        abrupt: whether to begin at the rate, which takes the time of the way up too.
    """
    lengths = (len(rates), len(points), len(levels))
    e, r, k = members(*lengths)
    stack = at_level(points[r], levels[k])
    reach = float(points.abs().max()) + 0.5
    net = two_layer(keys[r], network.width, reach=reach, scale=network.start / stack.sigma**2).to(stack.points)
    whole = quadrature(stack)
    eta, third = rates.expand(lengths).flatten().to(stack.sigma), steps // 3
    limit, last = network.bound / stack.sigma**2, steps - 2 * third

    def trained(net: TwoLayer, first: int, count: int, schedule, at: Sequence[int]) -> Iterator[Progress]:
        batches = minibatches(stack, keys[r], batch, count, first) if batch else repeat(whole, count)
        return descend(net, stack, eta, batches, bound=limit, schedule=schedule, at=at)

    def relative(net: TwoLayer) -> Tensor:
        return excess_risk(net, stack, whole) / zero_score_risk(stack)

    kept = [net.members(torch.arange(len(eta)))]
    list(trained(net, 0, 2 * third, ramp(eta, START, START, 0 if abrupt else third, steps, 1), ()))
    looks, sharp, alive = [], [], torch.ones(lengths).bool()
    # From here on two copies see the same batches: one stays at the rate, the other is annealed.
    stays = net.members(torch.arange(len(eta)))
    at = [last * (_LOOKS + i) // (2 * _LOOKS) for i in range(1, _LOOKS + 1)]
    for progress in trained(stays, 2 * third, last, None, at):
        looks.append(relative(stays))
        alive = progress.alive.view(lengths).cpu()
        if with_sharpness:
            sharp.append(sharpness(stays, whole, iterations=12) * eta / 2)
    list(trained(net, 2 * third, last, ramp(eta, START, START, 0, 0, last), ()))
    kept += [stays, net]
    excess = torch.stack([relative(kept[0]), torch.stack(looks).median(0).values, relative(net)])
    silent = excess_risk(torch.zeros_like, stack, whole) / zero_score_risk(stack)
    edge = torch.stack(sharp).median(0).values.view(lengths).cpu() if sharp else torch.zeros(0)
    weights = net.w1, torch.stack([one.b for one in kept]), torch.stack([one.w2 for one in kept])
    return Sweep(excess.view(3, *lengths).cpu(), silent.view(lengths).cpu(), edge, alive, *weights, stack)


def joined(parts: list[Sweep]) -> Sweep:
    """Sweeps over the same runs and levels as one, rate after rate."""
    if len(parts) == 1:
        return parts[0]
    stack = Problem(*(torch.cat(tensors) for tensors in zip(*(part.problem for part in parts), strict=True)))
    axes = {"excess": 1, "silent": 0, "sharp": 0, "alive": 0, "w1": 0, "b": 1, "w2": 1}
    tensors = {name: torch.cat([getattr(part, name) for part in parts], axis) for name, axis in axes.items()}
    return Sweep(**tensors, problem=stack)
