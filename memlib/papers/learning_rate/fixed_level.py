"""One fixed noise level: noisy training points y = mu x + sigma z, the score that memorizes them, and the risk.

The slides give sigma(t) and mu(t); here both are (M,), one number for each of M members that are trained at once. The
noise level of the other modules is sigma / mu. Regression on the target -(y - mu x) / sigma^2 is denoising score
matching. The optimal score s* is the mean of that target given y, so

    R_n(s) - R_n(s*) = E |s(Y) - s*(Y)|^2:

the distance of a network from s* is exactly the training loss that it has left. Wu et al. 2025, "Taking a Big Step".
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.random import keyed, to_device

_STEPS = 64  # mini-batches made at once, which divides the cost of a generator and of small operations by 64
_REACH = 4.5  # standard deviations that the quadrature covers


class Problem(NamedTuple):
    """What M members learn: points (M, n, d), mu (M,) and sigma (M,). Made by `problem`."""

    points: Tensor
    mu: Tensor
    sigma: Tensor


class NoisyBatch(NamedTuple):
    """Noisy points y (M, B, d), regression targets (M, B, d), and weights (B,) that sum to 1."""

    y: Tensor
    target: Tensor
    weight: Tensor


def problem(points: Tensor, sigma: Tensor, mu: Tensor | None = None) -> Problem:
    """A `Problem` of M members.

    Arguments:
        points: the training points, (n, d) for all members or (M, n, d).
        sigma: (M,), above 0, and below 1 where `mu` is not given.
        mu: (M,). None is that of the slides' forward process dX = -X dt + sqrt(2) dB, where mu^2 = 1 - sigma^2.

    Raises:
        Refused: for shapes that do not fit and for levels out of range.
    """
    if points.dim() not in (2, 3) or sigma.dim() != 1 or (points.dim() == 3 and len(points) != len(sigma)):
        given = f"{tuple(points.shape)} and {tuple(sigma.shape)}"
        raise Refused(f"a problem needs points (n, d) or (M, n, d) and sigma (M,), not of shapes {given}")
    if not (sigma > 0).all() or (mu is None and not (sigma < 1).all()):
        raise Refused(f"sigma runs from {sigma.min():.3g} to {sigma.max():.3g}: give 0 < sigma, and sigma < 1 or mu")
    sigma = sigma.to(points)
    mu = (1 - sigma**2).sqrt() if mu is None else mu.to(points).expand_as(sigma)
    return Problem(points.expand(len(sigma), *points.shape[-2:]), mu, sigma)


def optimal_score(problem: Problem, y: Tensor) -> Tensor:
    """s*(y), the minimiser of the risk over all functions, (M, B, d) -> (M, B, d). Slide 4.

    It is the mean of (mu x_i - y) / sigma^2 under weights exp(-|y - mu x_i|^2 / 2 sigma^2). The weights are a softmax,
    so they do not underflow however small sigma is.
    """
    offset = _column(problem.mu)[..., None] * problem.points[:, None] - y[:, :, None]  # (M, B, n, d)
    variance = _column(problem.sigma) ** 2
    weight = (-0.5 * offset.square().sum(3) / variance).softmax(2)  # (M, B, n)
    return (weight[..., None] * offset).sum(2) / variance


def density(problem: Problem, y: Tensor) -> Tensor:
    """Density of the noisy points at y (M, B, d), (M, B)."""
    square = (_column(problem.mu)[..., None] * problem.points[:, None] - y[:, :, None]).square().sum(3)
    variance, size = problem.sigma[:, None] ** 2, y.shape[2]
    kernel = (-0.5 * square / variance[..., None]).exp().mean(2)
    return kernel * (2 * torch.pi * variance) ** (-size / 2)


def quadrature(problem: Problem, nodes: int = 33) -> NoisyBatch:
    """The full risk R_n for d = 1: y (M, n * nodes, 1) with weights, by the trapezoidal rule over each point's noise.

    Exact to rounding for smooth functions; the error is O(nodes^-2) where the function has a kink.

    Raises:
        Refused: for d > 1, where `minibatches` estimate the risk.
    """
    if problem.points.shape[2] != 1:
        width = problem.points.shape[2]
        raise Refused(f"quadrature is for points on a line, not of {width} coordinates: use minibatches")
    z = torch.linspace(-_REACH, _REACH, nodes).to(problem.points)
    weight = (-0.5 * z**2).exp()
    weight = weight / weight.sum()
    count = problem.points.shape[1]
    y = _column(problem.mu) * problem.points + _column(problem.sigma) * z  # (M, n, nodes)
    target = (-z / _column(problem.sigma)).expand_as(y)
    return NoisyBatch(y.flatten(1)[..., None], target.flatten(1)[..., None], (weight / count).repeat(count))


def minibatches(problem: Problem, seeds: Tensor, size: int, steps: int, first: int = 0) -> Iterator[NoisyBatch]:
    """The batches of steps `first` to `first + steps - 1`: `size` points drawn with replacement, with fresh noise.

    The batch of a member depends on its seed and the step alone. So members with the same seed see the same batches
    (their differences are paired), and no member depends on the others in the stack.

    Arguments:
        seeds: integers, (M,).

    Returns:
        An iterator of batches with y (M, size, d).
    """
    names, which = seeds.cpu().unique(return_inverse=True)
    members, count, width = problem.points.shape
    rows = torch.arange(members, device=problem.points.device)[:, None]
    weight = problem.points.new_full((size,), 1 / size)
    for block in range(first // _STEPS, -(-(first + steps) // _STEPS)):
        drawn = [_drawn(int(name), block, size, count, width) for name in names]
        index, z = (to_device(torch.stack(part)[which], problem.points.device) for part in zip(*drawn, strict=True))
        z = z.to(problem.points)  # (M, 64, B, d)
        y = problem.points[rows, index.flatten(1)].view_as(z).mul(_column(problem.mu)[..., None])
        y.addcmul_(z, _column(problem.sigma)[..., None])
        target = z.div_(-_column(problem.sigma)[..., None])
        for step in range(max(first, block * _STEPS), min(first + steps, (block + 1) * _STEPS)):
            yield NoisyBatch(y[:, step % _STEPS], target[:, step % _STEPS], weight)


def risk(score: Callable[[Tensor], Tensor], batch: NoisyBatch) -> Tensor:
    """Denoising score matching loss of each member's score (M, B, d) -> (M, B, d) on a batch, (M,). Slide 4."""
    return (score(batch.y) - batch.target).square().sum(2) @ batch.weight


def excess_risk(score: Callable[[Tensor], Tensor], problem: Problem, batch: NoisyBatch) -> Tensor:
    """E |s(Y) - s*(Y)|^2 over the rows of a batch, (M,): the left side of the theorem. Slide 12."""
    return risk(score, batch._replace(target=optimal_score(problem, batch.y)))


def zero_score_risk(problem: Problem) -> Tensor:
    """R_n(0) = d / sigma^2, (M,), the risk of the zero function.

    Output weights of 0 are allowed and the risk is convex in them. So no local minimum in the output weights has a risk
    above this value, nor an excess risk above it.
    """
    return problem.points.shape[2] / problem.sigma**2


def min_distance(points: Tensor) -> Tensor:
    """Delta, the smallest distance between two points, (M, n, d) -> (M,)."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return distance.amin((1, 2))


def rate_threshold(problem: Problem) -> Tensor:
    """2^12 sigma^2 / (mu n^2 Delta), (M,): the theorem holds above this learning rate. Slide 12."""
    return 2**12 * problem.sigma**2 / (problem.mu * problem.points.shape[1] ** 2 * min_distance(problem.points))


def risk_bound(problem: Problem, bound: float | Tensor, constant: float = 1.0) -> Tensor:
    """C n^5 Delta^3 / (A^4 sigma^4), (M,): the theorem's lower bound on the excess risk. Slide 12.

    Arguments:
        bound: A, the largest output weight, a number or (M,).
        constant: C, which the slides do not give.
    """
    return constant * problem.points.shape[1] ** 5 * min_distance(problem.points) ** 3 / (bound**4 * problem.sigma**4)


def _drawn(seed: int, block: int, size: int, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Indices (64, B) and noise (64, B, d) of one seed."""
    generator = keyed(seed, block)
    index = torch.randint(count, (_STEPS, size), generator=generator)
    return index, torch.randn(_STEPS, size, width, generator=generator, dtype=torch.float64)


def _column(values: Tensor) -> Tensor:
    """(M,) -> (M, 1, 1)."""
    return values[:, None, None]
