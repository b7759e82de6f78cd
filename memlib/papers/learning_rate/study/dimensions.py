"""L4: the same network on normal points in d dimensions, the distance between points held equal."""

import torch
from torch import Tensor

from memlib import sample
from memlib.papers.learning_rate.descent import descend
from memlib.papers.learning_rate.fixed_level import Problem, minibatches, optimal_score
from memlib.papers.learning_rate.sampling import multilevel_denoiser
from memlib.papers.learning_rate.shallow import TwoLayer, two_layer
from memlib.papers.learning_rate.study.line import Network, at_level, members
from memlib.random import keyed

_SAMPLES = 200


def in_dimension(
    d: int,
    runs: int,
    n_points: int,
    first: int,
    arms: list[tuple[float, float]],
    levels: Tensor,
    network: Network,
    steps: int,
    batch: int,
) -> Tensor:
    """Fractions (3, arms, R): samples memorized; of s*, and of the law's own score, learnt at the lowest level.

    What stays equal as d grows is the number of points and the distance of a fresh draw to the nearest of them, whose
    median is scaled to 1/2. A fraction of a score is 1 - |s - target|^2 / |target|^2.

    Arguments:
        arms: (initial output weights times sigma^2, learning rate) of each.
        levels: the few sigma / mu that are trained and sampled, (K,), decreasing, on the device that trains.
    """
    generator = keyed(first, -4 - d)
    points, others = (torch.randn(runs, count, d, generator=generator) for count in (n_points, 500))
    unit = 2 * torch.cdist(others, points).amin(2).median(1).values[:, None, None]
    points, others = points / unit, others / unit
    e, r, k = members(len(arms), runs, len(levels))
    stack = at_level(points[r].to(levels.device), levels[k])
    reach, (scale, eta) = float(points.norm(dim=2).max()), torch.tensor(arms)[e].T.to(stack.sigma)
    net = two_layer(first + r, network.width, d, reach=reach, scale=scale / stack.sigma**2).to(stack.points)
    batches = minibatches(stack, first + r, batch, steps)
    list(descend(net, stack, eta, batches, bound=network.bound / stack.sigma**2))
    tolerance = torch.cdist(others, points).amin(2).quantile(0.05, 1)[:, None]
    near = _sampled_distance(net, stack, points, len(arms), len(levels)).view(len(arms), runs, -1)
    learnt = _learnt(net, stack, unit, (len(arms), runs, len(levels)), first)
    return torch.stack([(near < tolerance).double().mean(2), *learnt])


def _sampled_distance(net: TwoLayer, stack: Problem, points: Tensor, arms: int, levels: int) -> Tensor:
    """Of the samples of every arm and run to the nearest training point (R, n, d), (arms R, samples)."""
    denoiser, grid = multilevel_denoiser(net, stack, levels)
    start = sample.start(grid, range(_SAMPLES), (points.shape[2],), dtype=grid.dtype, device=grid.device)
    x = sample.ancestral(denoiser, start.expand(arms * len(points), -1, -1), grid)
    return torch.cdist(x.cpu(), points.repeat(arms, 1, 1)).amin(2)


def _learnt(net: TwoLayer, stack: Problem, unit: Tensor, shape: tuple[int, int, int], first: int) -> list[Tensor]:
    """Fraction of s* and of the law's score that was learnt at the lowest level, (arms, R) each, in float64.

    The law is normal, of deviation 1 / unit (R, 1, 1), and stays so under noise.
    """
    member = torch.arange(len(stack.mu))
    drawn = next(minibatches(stack, member, 256, 1)).y
    spread = (stack.mu / unit[member // shape[2] % shape[1], 0, 0].to(stack.mu))[:, None, None]
    total = spread**2 + stack.sigma[:, None, None] ** 2
    y = total.sqrt() * torch.randn(drawn.shape, generator=keyed(first, -3)).to(drawn)
    fractions = []
    for x, target in ((drawn, optimal_score(stack, drawn)), (y, -y / total)):
        missing = (net(x) - target).square().sum((1, 2)) / target.square().sum((1, 2))
        fractions.append((1 - missing).view(shape)[:, :, -1].double().cpu())
    return fractions
