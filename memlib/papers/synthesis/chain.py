"""The density of a generative chain on a line, by quadrature: what the variational bound is a bound on."""

import math

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, evaluated
from memlib.errors import Refused
from memlib.likelihood import prior
from memlib.noise import Grid, as_level, levels_of
from memlib.shapes import Float

_REACH = 9.0  # half-width of the integration, in deviations of the noised data


@torch.no_grad()
def log_density(
    denoiser: Denoiser, x0: Float[Tensor, "b 1"], sigmas: Grid, spread: float, points: int = 1600
) -> Float[Tensor, " b"]:
    """log p(x0) of the chain that `likelihood.variational_bound` bounds, in nats, (B,), float64; in one dimension.

    The chain starts from N(0, sigma_T^2), goes down the levels with the variance of the bridge, and ends with
    N(D(x_1, sigma_1), sigma_1^2). Each step is an integral over a line, taken by the trapezoidal rule. Its error is
    negligible where the distance of two points is below the deviation of a step.

    Arguments:
        denoiser: D(x, sigma) for samples of shape (1,).
        x0: points (B, 1).
        sigmas: decreasing levels (T,), T >= 2; a 0 at the end is left out.
        spread: the deviation of the data about 0.
        points: of the integration at each level.

    Raises:
        Refused: for samples of another shape, and where the points are too far apart for the steps of the grid.
    """
    if x0.ndim != 2 or x0.shape[1] != 1:
        raise Refused(f"the chain is integrated over a line: give points (B, 1), not {tuple(x0.shape)}")
    levels = [level for level in levels_of(sigmas) if level > 0]
    calm = evaluated(denoiser)

    def line(level: float) -> Tensor:
        reach = _REACH * math.hypot(spread, level)
        return torch.linspace(-reach, reach, points, dtype=torch.float64, device=x0.device)

    x = line(levels[0])
    log_p = prior(levels[0])(x[:, None])
    for level, after in zip(levels, [*levels[1:], 0.0], strict=True):
        kept = (after / level) ** 2  # of x; the rest is of D
        mean = kept * x + (1 - kept) * calm(x[:, None].to(x0), as_level(level, x0))[:, 0].double()
        deviation = after * math.sqrt(1 - kept) if after else level
        step, to = float(x[1] - x[0]), line(after) if after else x0[:, 0].double()
        apart = max(step, float(mean.diff().abs().max()) if after == 0 else float(to[1] - to[0]))
        if apart > 1.5 * deviation:
            raise Refused(
                f"points {apart:.3g} apart do not resolve a step of deviation {deviation:.3g}: give more points"
            )
        density = -0.5 * ((to[:, None] - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))
        log_p = (density + log_p).logsumexp(1) + math.log(step)
        x = to
    return log_p
