"""The clock: noise levels sigma as plain tensors, for sampling and for training.

Divide a linear Gaussian diffusion with kernel N(alpha_t x0, sigma_t^2 I) by alpha_t: it becomes a Brownian path read at
sigma = sigma_t / alpha_t, the same path for every diffusion. VE, VP and DDPM therefore differ here only in the sigmas
that they visit. Grids are float64, because a product of a thousand alphas loses four digits in float32, and they are on
the CPU. `expand_sigma` brings a level to the dtype and device of the sample.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.random import Noise, noise_from, seeded
from memlib.shapes import Float, PerSample, Shaped

__all__ = [
    "Grid",
    "Noise",
    "add_noise",
    "ddpm",
    "discrete",
    "expand_sigma",
    "karras",
    "levels_of",
    "lognormal",
    "loguniform",
    "noise_from",
    "seeded",
    "uniform_step",
    "uniform_time",
    "ve",
    "vp",
    "vp_sigma",
]

Grid = Float[Tensor, " n"] | Sequence[float] | np.ndarray
"""Decreasing noise levels (n,), usually ending in 0: a tensor, or a list or array of them."""


def expand_sigma(sigma: float | Shaped[Tensor, "..."], x: Shaped[Tensor, " b *s"]) -> Shaped[Tensor, "..."]:
    """The noise level in a shape that broadcasts with the samples.

    Arguments:
        sigma: a float, a scalar tensor or (B,).
        x: samples (B, *S).

    Returns:
        sigma as (B, 1, ..., 1) or (1, ..., 1), in the dtype and on the device of x.

    Raises:
        ValueError: if sigma has neither one value nor B.
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    if len(sigma) not in (1, len(x)):
        raise ValueError(f"sigma has {len(sigma)} values for a batch of {len(x)}; give one, or one per sample")
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def add_noise(x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise = torch.randn_like) -> Float[Tensor, " b *s"]:
    """x0 + sigma n, the forward process at level sigma; (B, *S) -> (B, *S)."""
    return x0 + expand_sigma(sigma, x0) * noise(x0)


def levels_of(sigmas: Grid) -> list[float]:
    """A grid (n,) as Python floats.

    Raises:
        Refused: for no level, and for levels that rise, or are not finite and positive; the last may be 0.
    """
    grid = torch.as_tensor(sigmas)
    floats = [float(level) for level in grid.tolist()] if grid.ndim == 1 else []
    if not floats or not 0 <= floats[0] < math.inf:
        told = tuple(grid.shape) if not floats else floats[0]
        raise Refused(f"a grid is (n,) finite levels from above 0 on, not {told}: make one with noise.karras")
    for sigma, target in zip(floats, floats[1:], strict=False):
        if target > sigma:
            raise Refused(
                f"the grid rises from {sigma:.6g} to {target:.6g}: give decreasing levels, or encode by sample.encode"
            )
        if not (0 < sigma < math.inf and target >= 0):
            raise Refused(
                f"the grid has a step from {sigma:.6g} to {target:.6g}: give finite levels, 0 only as the last"
            )
    return floats


# Grids of sampling: (n + 1,), decreasing, last 0.


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) levels, evenly spaced in sigma^(1/rho), then 0. Karras et al. 2022, eq. 5."""
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return _ending_in_zero(ramp**rho)


def ddpm(n: int, beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) levels sqrt(1/alpha_bar - 1) of a DDPM with linear betas, then 0. Ho et al. 2020, sec. 4.

    Arguments:
        n: sampling steps. For n < steps the timesteps are 0, r, 2r, ... with r = steps // n. This "leading" spacing is
            that of DDIM, and the default of diffusers.
        beta_min: the first beta.
        beta_max: the last beta.
        steps: T, the timesteps of training.

    Raises:
        ValueError: if n is not between 1 and steps.
    """
    if not 1 <= n <= steps:
        raise ValueError(f"{n} sampling steps do not fit a DDPM of {steps}; choose 1 to {steps}")
    betas = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)
    return discrete(torch.cumprod(1 - betas, 0), n)


def discrete(alphas_cumprod: Float[Tensor, " t"], n: int | None = None) -> Float[Tensor, " levels"]:
    """(n + 1,) levels of a discrete-time model from its alpha_bar (T,), then 0. Spaced as in `ddpm`; n is T if None."""
    sigmas = (1 / alphas_cumprod.double() - 1).sqrt()
    n = n or len(sigmas)
    return _ending_in_zero(sigmas[torch.arange(n) * (len(sigmas) // n)].flip(0))


def vp(n: int, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) levels of the VP SDE at n times evenly spaced in [t_min, 1], then 0. Song et al. 2021, eq. 33."""
    return _ending_in_zero(vp_sigma(torch.linspace(1.0, t_min, n, dtype=torch.float64), beta_min, beta_max))


def ve(n: int, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) geometric levels of the VE SDE, then 0. Song et al. 2021, eq. 30."""
    ramp = torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64)
    return _ending_in_zero(ramp.exp())


def vp_sigma(t: Float[Tensor, "*s"], beta_min: float = 0.1, beta_max: float = 20.0) -> Float[Tensor, "*s"]:
    """sqrt(exp(integral of beta) - 1), the VP sigma at times t in (0, 1] of any shape. Song et al. 2021, eq. 33."""
    return torch.expm1(0.5 * t**2 * (beta_max - beta_min) + t * beta_min).sqrt()


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


# Random levels for training: (n,), from an explicit generator.


def lognormal(
    n: int, mean: float = -1.2, std: float = 1.2, generator: torch.Generator | None = None
) -> Float[Tensor, " {n}"]:
    """(n,) levels with ln sigma ~ N(mean, std^2). Karras et al. 2022, table 1."""
    return (mean + std * torch.randn(n, generator=generator)).exp()


def loguniform(
    n: int, sigma_min: float, sigma_max: float, generator: torch.Generator | None = None
) -> Float[Tensor, " {n}"]:
    """(n,) levels, uniform in ln sigma: the VE SDE at uniform times. Song et al. 2021, eq. 30."""
    return sigma_min * (sigma_max / sigma_min) ** torch.rand(n, generator=generator)


def uniform_time(
    n: int, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3, generator: torch.Generator | None = None
) -> Float[Tensor, " {n}"]:
    """(n,) levels of the VP SDE at times uniform in [t_min, 1]. Song et al. 2021, eq. 7 with eq. 33."""
    return vp_sigma(t_min + (1 - t_min) * torch.rand(n, generator=generator), beta_min, beta_max)


def uniform_step(
    n: int, sigmas: Float[Tensor, " t"], generator: torch.Generator | None = None
) -> Float[Tensor, " {n}"]:
    """(n,) random levels of a grid (T + 1,), never its final 0: the random t of DDPM. Ho et al. 2020, alg. 1."""
    return sigmas[torch.randint(len(sigmas) - 1, (n,), generator=generator)]
