"""From scores at fixed levels to samples: networks for several noise levels, joined into one denoiser."""

import torch
from torch import Tensor

from memlib.denoiser import Denoiser
from memlib.errors import Refused
from memlib.papers.learning_rate.descent import ScoreNetworks
from memlib.papers.learning_rate.fixed_level import Problem


def multilevel_denoiser(net: ScoreNetworks, problem: Problem, levels: int) -> tuple[Denoiser, Tensor]:
    """A denoiser of x (R, N, d) and its grid of levels sigma / mu, (levels + 1,), decreasing, last 0.

    With y = mu x, a score s at (mu, sigma) gives the denoiser D(x) = (y + sigma^2 s(y)) / mu. Run r denoises x[r], so
    all runs sample at once: `sample.ancestral(denoiser, grid[0] * noise, grid)`.

    Arguments:
        net: R runs of `levels` members each, run after run, sigma decreasing within a run.
        problem: what the members learnt.

    Raises:
        Refused: for runs with different levels. The denoiser refuses a level that is not on its grid.
    """
    rows = torch.arange(len(problem.sigma)).view(-1, levels)
    grid = (problem.sigma / problem.mu)[rows]  # (R, L)
    if not (grid == grid[0]).all() or not (grid[0].diff() < 0).all():
        raise Refused("every run needs the same levels, decreasing: order the members run after run")
    nets = [net.members(rows[:, level]) for level in range(levels)]
    mu, sigma = problem.mu[rows[0]].tolist(), problem.sigma[rows[0]].tolist()

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        distance, k = (grid[0].to(level) / level - 1).abs().min(0)
        if distance > 1e-4:
            raise Refused(f"there is no network for level {float(level):.4g}: sample on the grid of the networks")
        y = mu[k] * x
        return (y + sigma[k] ** 2 * nets[k](y)) / mu[k]

    return denoise, torch.cat([grid[0], grid.new_zeros(1)])
