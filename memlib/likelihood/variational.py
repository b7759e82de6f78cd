"""The discrete variational bound of a denoiser: what its training objective says of the likelihood.

The generative chain of a grid sigma_T > ... > sigma_1 draws x_T ~ N(0, sigma_T^2 I), then goes down the levels with the
variance of the bridge (`sample.ancestral` with eta = 1), and ends with x_0 ~ N(D(x_1, sigma_1), sigma_1^2 I). With
x_t = x0 + sigma_t n it holds for every x0 that

    -log p(x0) <= KL(q(x_T | x0) | p(x_T)) + sum over steps of w E|x0 - D(x_t, sigma_t)|^2 + d/2 log(2 pi sigma_1^2),

with w = (1 / sigma_s^2 - 1 / sigma_t^2) / 2 for a step from sigma_t to sigma_s, and w = 1 / (2 sigma_1^2) for the last
one, which reconstructs x0. Ho et al. 2020, eq. 5; Kingma et al. 2021, where 1 / sigma^2 is the signal-to-noise
ratio and the sum their discrete-time loss. Both sides are in nats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, evaluated
from memlib.errors import Refused
from memlib.likelihood._terminal import given
from memlib.noise import Grid, Noise, levels_of
from memlib.shapes import Float, Shaped


class VariationalBound(NamedTuple):
    """Upper bounds on -log p(x0), in nats, and their three parts; all in float64.

    Attributes:
        value: (B,), the sum of the parts.
        stderr: (B,), the standard error of `value` over draws of the noise; nan for one draw.
        prior: (B,), KL(q(x_T | x0) | p(x_T)).
        steps: (B, T - 1), what each step between two levels adds, from the highest level down.
        reconstruction: (B,), E[-log p(x0 | x_1)].
    """

    value: Float[Tensor, " b"]
    stderr: Float[Tensor, " b"]
    prior: Float[Tensor, " b"]
    steps: Float[Tensor, "b steps"]
    reconstruction: Float[Tensor, " b"]


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser,
    x0: Shaped[Tensor, "..."],
    sigmas: Grid,
    noise: Noise,
    draws: int = 1,
    terminal: Callable[[Tensor], Tensor] | None = None,
) -> VariationalBound:
    """The variational bound on -log p(x0) for each point, in nats. Ho et al. 2020, eq. 5; Kingma et al. 2021.

    It bounds the density of the chain of this grid, not that of the probability flow. Its mean over data is at least
    their entropy, whatever the denoiser. With the exact denoiser it falls to -log p(x0) as the grid becomes fine,
    sigma_1 falls below the finest scale of the data, and sigma_T rises above the coarsest.

    Expectations over the noise are means over `draws`, so a value has the error `stderr`. Networks are in evaluation
    mode while they are called here.

    Arguments:
        denoiser: D(x, sigma).
        x0: points (B, *S), floating, d coordinates each.
        sigmas: decreasing levels (T,), such as `noise.ve(T)`; a 0 at the end is left out, since the last step
            reconstructs x0.
        noise: standard normal noise for x0; it is called once for each draw and level, from the highest level down.
        draws: independent draws of the noise at every level.
        terminal: log p(x_T), (B, *S) -> (B,), of the generative model; its expectation is taken over the same draws.
            None is `prior(sigma_T)`, N(0, sigma_T^2 I), whose KL is |x0|^2 / (2 sigma_T^2).

    Raises:
        Refused: for x0 of another type or shape, a grid without a positive level or that rises, draws below 1, a
            terminal that returns another shape, and a denoiser that becomes NaN or infinite.
    """
    if not x0.is_floating_point() or x0.ndim < 2:
        raise Refused(f"x0 must be floating point of shape (B, *S), not {x0.dtype} of shape {tuple(x0.shape)}")
    if draws < 1:
        raise Refused(f"an expectation over the noise takes 1 draw or more, not {draws}")
    levels = [level for level in levels_of(sigmas) if level > 0]
    if not levels:
        raise Refused("the grid has no level above 0: give sigma_T > ... > sigma_1, such as noise.ve(100)")
    size, calm = math.prod(x0.shape[1:]), evaluated(denoiser)
    precision = [1 / level**2 for level in levels]
    rises = [(after - before) / 2 for before, after in zip(precision, [*precision[1:], 2 * precision[-1]], strict=True)]
    errors = x0.new_zeros(draws, len(levels), len(x0), dtype=torch.float64)
    ends = []
    for draw in range(draws):
        for row, level in enumerate(levels):
            x = x0 + level * noise(x0)
            off = (x0 - calm(x, torch.full((), level, dtype=x0.dtype, device=x0.device))).flatten(1).double()
            errors[draw, row] = off.square().sum(1)
            if row == 0 and terminal is not None:
                ends.append(given(terminal, x))
    if not errors.isfinite().all():
        row = int((~errors.isfinite()).any(2).any(0).nonzero()[0])
        raise Refused(f"the denoiser becomes NaN or infinite at sigma={levels[row]:.4g}: look at it, or at x0, there")
    paid = errors * torch.tensor(rises, dtype=torch.float64, device=x0.device)[:, None]  # (draws, T, B)
    if terminal is None:
        prior = (x0.flatten(1).double().square().sum(1) * precision[0] / 2).expand(draws, -1)
    else:
        prior = -size / 2 * math.log(2 * math.pi * math.e * levels[0] ** 2) - torch.stack(ends)
    constant = size / 2 * math.log(2 * math.pi * levels[-1] ** 2)
    values = prior + paid.sum(1) + constant  # (draws, B)
    spread = values.std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(values[0], math.nan)
    mean = paid.mean(0)
    return VariationalBound(values.mean(0), spread, prior.mean(0), mean[:-1].T, mean[-1] + constant)
