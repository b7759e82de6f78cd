"""L4: one network and one arm on normal points in d dimensions, the distance between points held equal.

The first layer is free and the optimiser is Adam: with a fixed first layer and plain steps the network learns neither
s* nor the truth from some eight dimensions on, and its memory says nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memlib import sample
from memlib.analytic import Empirical
from memlib.papers.learning_rate.descent import descend, ramp
from memlib.papers.learning_rate.fixed_level import Problem, minibatches, optimal_score
from memlib.papers.learning_rate.sampling import multilevel_denoiser
from memlib.papers.learning_rate.shallow import TwoLayer, two_layer
from memlib.papers.learning_rate.study.line import at_level, members
from memlib.random import keyed

RATE, END = 0.3, 1e-3  # Adam's rate, and the one from which it rises and to which it is annealed
LEVELS = [4.0, 1.6, 0.6, 0.4, 0.25]  # sigma / mu
_MANY = 5000  # points of the control
BATCH = 32
_SAMPLES = 200

Score = Callable[[Tensor], Tensor]  # at y (R, B, d)


def in_dimension(d: int, runs: int, n_points: int, first: int, width: int, steps: int, like: Tensor) -> Tensor:
    """Fractions (5, R): samples memorized; the same of samples of s*; of s*, and of the law's own score, learnt at the
    lowest level; and of the law's score learnt by the same network from 5,000 points.

    What stays equal as d grows is the number of points and the distance of a fresh draw to the nearest of them, whose
    median is scaled to 1/2. The fraction of a score that is learnt is 1 - |s - target|^2 / |other - target|^2, where
    the other is the law's score for s* (at noisy training points) and s* for the law's (at noisy fresh points): s* and
    the law's score share most of their length in many dimensions, and that part proves nothing.

    Arguments:
        like: a tensor on the device that trains.
    """
    generator = keyed(first, -4 - d)
    points, others, many = (torch.randn(runs, count, d, generator=generator) for count in (n_points, 500, _MANY))
    unit = 2 * torch.cdist(others, points).amin(2).median(1).values[:, None, None]
    points, others, many = ((part / unit).to(like) for part in (points, others, many))
    reach = float(points.norm(dim=2).max())
    net, stack = _trained(points, torch.tensor(LEVELS), first, width, reach, steps)
    control, _ = _trained(many, torch.tensor(LEVELS[-1:]), first, width, reach, steps)
    tolerance = torch.cdist(others, points).amin(2).quantile(0.05, 1)[:, None]

    def memorized(x: Tensor) -> Tensor:
        return (torch.cdist(x, points).amin(2) < tolerance).double().mean(1).cpu()

    denoiser, grid = multilevel_denoiser(net, stack, len(LEVELS))
    start = sample.start(grid, range(_SAMPLES), (d,), dtype=grid.dtype, device=grid.device)
    x = sample.ancestral(denoiser, start.expand(runs, -1, -1), grid)
    exact = torch.stack([sample.ancestral(Empirical(own), start, grid) for own in points])
    last = torch.arange(runs) * len(LEVELS) + len(LEVELS) - 1
    lowest = Problem(*(tensor[last] for tensor in stack))
    # The law is normal, of deviation 1 / unit, and stays normal under noise.
    variance = (lowest.mu[:, None, None] / unit.to(lowest.mu)) ** 2 + lowest.sigma[:, None, None] ** 2
    drawn = next(minibatches(lowest, first + torch.arange(runs), 256, 1)).y  # noisy training points
    fresh = variance.sqrt() * torch.randn(drawn.shape, generator=keyed(first, -3)).to(drawn)

    def star(y: Tensor) -> Tensor:
        return optimal_score(lowest, y)

    def truth(y: Tensor) -> Tensor:
        return -y / variance

    learnt = net.members(last)
    parts = [
        _learnt(learnt, star, truth, drawn),
        _learnt(learnt, truth, star, fresh),
        _learnt(control, truth, star, fresh),
    ]
    return torch.stack([memorized(x), memorized(exact), *parts])


def _trained(
    points: Tensor, levels: Tensor, first: int, width: int, reach: float, steps: int
) -> tuple[TwoLayer, Problem]:
    """Networks of R runs x levels on points (R, n, d), each in its third of the way up, at the rate and down."""
    r, k = members(len(points), len(levels))
    stack = at_level(points[r], levels[k].to(points))
    net = two_layer(first + r, width, points.shape[2], reach=reach, scale=1 / stack.sigma**2, free=True).to(points)
    rate, third = torch.full_like(stack.sigma, RATE), steps // 3
    schedule = ramp(rate, END, END, third, third, steps - 2 * third)
    batches = minibatches(stack, first + r, BATCH, steps)
    list(descend(net, stack, rate, batches, optimiser="adam", schedule=schedule))
    return net, stack


def _learnt(net: TwoLayer, target: Score, other: Score, y: Tensor) -> Tensor:
    """1 - |s - target|^2 / |other - target|^2 at y (R, B, d) for each member, (R,), in float64."""
    aim = target(y)
    missing = (net(y) - aim).double().square().sum((1, 2)) / (other(y) - aim).double().square().sum((1, 2))
    return (1 - missing).cpu()
