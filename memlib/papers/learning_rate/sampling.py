"""From scores at fixed levels to samples: a ladder of networks, one a noise level, is one denoiser."""

import torch
from torch import Tensor

from memlib.denoiser import Denoiser
from memlib.errors import Refused
from memlib.papers.learning_rate.descent import ScoreNetworks
from memlib.papers.learning_rate.fixed_level import Problem


def multilevel_denoiser(net: ScoreNetworks, problem: Problem, levels: int) -> tuple[Denoiser, Tensor]:
    """A denoiser of x (R, N, d) and its grid of house levels sigma / mu, (levels + 1,), decreasing, last 0.

    The members are R runs of `levels` levels each, run after run, in one decreasing order of sigma. Run r denoises
    x[r], so that all runs sample at once: `sample.ancestral(denoiser, grid[0] * noise, grid)`. With y = mu x, the
    score s of the slides' clock means D(x) = (y + sigma^2 s(y)) / mu. The denoiser knows the levels of its grid and
    refuses others.
    """
    rows = torch.arange(len(problem.sigma)).view(-1, levels)
    grid = (problem.sigma / problem.mu)[rows]  # (R, L)
    if not (grid == grid[0]).all() or not (grid[0].diff() < 0).all():
        raise Refused("a ladder needs the same levels in every run, decreasing: order the members run after run")
    nets = [net.members(rows[:, level]) for level in range(levels)]
    mu, sigma = problem.mu[rows[0]].tolist(), problem.sigma[rows[0]].tolist()

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        distance, k = (grid[0].to(level) / level - 1).abs().min(0)
        if distance > 1e-4:
            raise Refused(f"the ladder has no network for level {float(level):.4g}: sample on its own grid")
        y = mu[k] * x
        return (y + sigma[k] ** 2 * nets[k](y)) / mu[k]

    return denoise, torch.cat([grid[0], grid.new_zeros(1)])
