"""L1 and L6: what a sweep of learning rates remembers, read from its networks and from the samples that they make."""

import torch
from torch import Tensor

from memlib import noise, sample
from memlib.analytic import Empirical
from memlib.papers.learning_rate.fixed_level import Problem, optimal_score, rate_threshold, zero_score_risk
from memlib.papers.learning_rate.sampling import multilevel_denoiser
from memlib.papers.learning_rate.study.line import MOMENTS, Sweep, at_level, row
from memlib.papers.learning_rate.study.results import Memory, Pictures, Smoothness
from memlib.random import keyed

_SAMPLES = 400  # of each rate and run
_FRESH = 4000  # draws of the uniform law, which set what counts as memorized
_STAR_LEVELS = [1.0, 0.4, 0.2, 0.1]  # sigma / mu at which the roughness of s* is measured


def measure(
    main: Sweep,
    arms: dict[str, Sweep],
    points: Tensor,
    first: int,
    rates: list[float],
    decisive: float,
    levels: Tensor,
) -> Memory:
    """`Memory` of the main sweep and of arms at the lowest level alone, on training points (R, n, 1)."""
    shape = main.alive.shape
    count, runs = points.shape[1], shape[1]
    training = points[..., 0].to(main.problem.mu)
    fresh = (torch.rand(runs, _FRESH, generator=keyed(first, -3)).to(training) - 0.5) * count
    tolerance = _nearest(fresh, training).quantile(0.05, 1)[:, None]
    fractions, paths = [], {}
    for moment in (1, 2):
        denoiser, grid = multilevel_denoiser(main.net(moment), main.problem, shape[2])
        start = sample.start(grid, range(_SAMPLES), (1,), dtype=grid.dtype, device=grid.device)
        paths[moment] = list(sample.ancestral_path(denoiser, start.expand(shape[0] * runs, -1, -1), grid))
        ends = paths[moment][-1].view(shape[0], runs, _SAMPLES)
        fractions.append((_nearest(ends, training) < tolerance).double().mean(2).cpu())
    exact = torch.stack([sample.ancestral(Empirical(own[:, None]), start, grid)[:, 0] for own in training])
    every = {"mini-batch": main} | arms
    return Memory(
        rates=rates,
        decisive=decisive,
        levels=levels.tolist(),
        excess={arm: one.excess[..., -1] for arm, one in every.items()},
        inside={arm: _inside(one, count) for arm, one in every.items()},
        sharp={arm: one.sharp[..., -1] for arm, one in every.items() if len(one.sharp)},
        fraction=torch.stack(fractions),
        exact=(_nearest(exact, training) < tolerance).double().mean(1).cpu(),
        truth=_from_truth(main, fresh[0, :2000], levels[-1].double(), count),
        silent=float(main.silent[0, :, -1].mean()),
        diverged={arm: ~one.alive for arm, one in every.items()},
        threshold=rate_threshold(main.problem).view(shape)[0, :, -1].cpu(),
        pictures=_pictures(main, paths[1], training[0]),
    )


def smoothness(main: Sweep, first: int, rates: list[float], levels: Tensor) -> Smoothness:
    """`Smoothness` of the learnt scores at the levels (L,), and of s* for the points of run 0."""
    count = main.problem.points.shape[1]
    rough = []
    for moment in range(len(MOMENTS)):
        target, learnt = curves(main, moment)
        bends = [curve.double().diff(dim=-1).diff(dim=-1).abs().sum(-1).cpu() for curve in (learnt, target)]
        rough.append(bends[0] / bends[1])
    own = row(torch.tensor([first]), count).double()
    star = [_variation(own, level) for level in _STAR_LEVELS]
    return Smoothness(rates, levels.tolist(), torch.stack(rough), _inside(main, count)[1], _STAR_LEVELS, star)


def curves(main: Sweep, moment: int) -> tuple[Tensor, Tensor]:
    """s* and s on a line of 301 points that spans the training points, (E, R, K, 301) each."""
    count = main.problem.points.shape[1]
    x = torch.linspace(-count / 2, count / 2, 301).to(main.problem.mu)
    y = x[None, :, None] * main.problem.mu[:, None, None]
    target, learnt = optimal_score(main.problem, y), main.net(moment)(y)
    return target.view(*main.alive.shape, -1), learnt.view(*main.alive.shape, -1)


def _nearest(x: Tensor, training: Tensor) -> Tensor:
    """Distance of samples (..., R, N) to the training points (R, n) of their run."""
    return (x[..., None] - training[:, None]).abs().amin(-1)


def _from_truth(main: Sweep, fresh: Tensor, level: Tensor, count: int) -> Tensor:
    """Squared distance over R_n(0), (E, R), of the scores at the rate, lowest level, from that of the uniform law.

    The law is a fine comb of points, whose score is in closed form; `fresh` (N,) are draws of it.
    """
    shape = main.alive.shape
    last = torch.arange(len(main.w1)).view(shape)[:, :, -1].flatten()
    law = Empirical(torch.linspace(-count / 2, count / 2, 401)[:, None].double())
    problem = Problem(*(tensor[last] for tensor in main.problem))
    x = noise.add_noise(fresh[:, None].cpu().double(), level, noise.seeded(range(len(fresh))))
    mu = problem.mu[0].cpu().double()
    score = (law(x, level) - x) / level**2 / mu  # of y = mu x
    y = (mu * x).to(problem.points).expand(len(last), -1, -1)
    distance = (main.net(1).members(last)(y) - score.to(y)).square().mean((1, 2)) / zero_score_risk(problem)
    return distance.view(shape[:2]).cpu()


def _inside(arm: Sweep, count: int) -> Tensor:
    """Fraction of units that are alive with their kink among the data, at the lowest level, (3, E, R)."""
    b = arm.b.view(3, *arm.alive.shape, -1)[:, :, :, -1].cpu()  # |w1| is 1
    return ((b.abs() < count / 2 + 0.5) & arm.alive[:, :, -1:]).double().mean(3)


def _variation(points: Tensor, level: float) -> float:
    """Total variation of the slope of s* in y, for points (1, n, 1) at one sigma / mu."""
    stack = at_level(points, torch.tensor([level]).double())
    count = points.shape[1]
    y = (stack.mu * torch.linspace(-count / 2, count / 2, 801).double())[None, :, None]
    curve = optimal_score(stack, y)[0, :, 0]
    return float(curve.diff().diff().abs().sum() / y[0].diff(dim=0)[0])


def _pictures(main: Sweep, path: list[Tensor], training: Tensor) -> Pictures:
    """Run 0 in full, at the rate."""
    shape = main.alive.shape
    target, learnt = curves(main, 1)
    sigma = main.problem.sigma.view(shape)[0, 0][:, None]
    states = torch.stack([state.view(shape[0], shape[1], -1)[:, 0] for state in path], 1)  # (E, K, N)
    count = main.problem.points.shape[1]
    parts = (torch.linspace(-count / 2, count / 2, 301), sigma * target[0, 0], sigma * learnt[:, 0], states, training)
    return Pictures(*(part.cpu() for part in parts))
