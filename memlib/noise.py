"""The clock: noise levels sigma as plain tensors, for sampling and for training.

Divide a linear Gaussian diffusion with kernel N(alpha_t x0, sigma_t^2 I) by alpha_t: it becomes a Brownian path read at
sigma = sigma_t / alpha_t, the same path for every diffusion. VE, VP and DDPM therefore differ here only in the sigmas
that they visit. Grids are float64, because a product of a thousand alphas loses four digits in float32, and they are on
the CPU. `expand_sigma` brings a level to the dtype and device of the sample.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.random import Noise, choose, noise_from, seeded, to_device
from memlib.shapes import Float, PerSample, Shaped

__all__ = [
    "Grid",
    "Noise",
    "Spacing",
    "add_noise",
    "as_level",
    "ddpm",
    "discrete",
    "discrete_levels",
    "expand_sigma",
    "karras",
    "levels_of",
    "lognormal",
    "loguniform",
    "noise_from",
    "seeded",
    "strength",
    "uniform_step",
    "uniform_time",
    "ve",
    "vp",
    "vp_sigma",
]

Spacing = Literal["leading", "trailing", "linspace"]
"""How n of T timesteps are chosen; Lin et al. 2023, table 2."""

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
        Refused: if sigma has neither one value nor B.
    """
    sigma = as_level(sigma, x).reshape(-1)
    if len(sigma) not in (1, len(x)):
        raise Refused(f"sigma has {len(sigma)} values for a batch of {len(x)}: give one, or one for each sample")
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def as_level(sigma: float | Shaped[Tensor, "..."], x: Shaped[Tensor, " b *s"]) -> Shaped[Tensor, "..."]:
    """The noise level as a tensor, () or (B,), in the dtype and on the device of x (B, *S), without waiting for it."""
    if isinstance(sigma, float | int):
        return torch.full((), sigma, dtype=x.dtype, device=x.device)
    values = sigma if isinstance(sigma, Tensor) else torch.as_tensor(sigma, dtype=x.dtype)
    return to_device(values, x.device, x.dtype)


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
    """(n + 1,) levels, evenly spaced in sigma^(1/rho), then 0. Karras et al. 2022, eq. 5.

    Raises:
        Refused: if n < 1, unless 0 < sigma_min < sigma_max, and for a rho that leaves no decreasing levels.
    """
    _check_range(n, sigma_min, sigma_max)
    try:
        ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    except ArithmeticError as error:
        raise Refused(f"rho = {rho} is beyond the numbers of a computer: give one such as 7") from error
    return _ending_in_zero(ramp**rho)


def ddpm(n: int, beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) levels sqrt(1/alpha_bar - 1) of a DDPM with linear betas, then 0. Ho et al. 2020, sec. 4.

    Arguments:
        n: sampling steps, spaced as the "leading" of `discrete`.
        beta_min: the first beta.
        beta_max: the last beta.
        steps: T, the timesteps of training.

    Raises:
        Refused: if n is not between 1 and steps.
    """
    betas = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)
    return discrete(torch.cumprod(1 - betas, 0), n)


def discrete(
    alphas_cumprod: Float[Tensor, " t"], n: int | None = None, spacing: Spacing = "leading", offset: int = 0
) -> Float[Tensor, " levels"]:
    """(n + 1,) levels of a discrete-time model from its alpha_bar (T,), then 0. They start within a stride of the top.

    A level of pure noise (alpha_bar = 0: zero terminal SNR, Lin et al. 2023) has no finite sigma: where a spacing asks
    for it, the level below is visited instead.

    Arguments:
        alphas_cumprod: alpha_bar (T,), decreasing, within [0, 1).
        n: sampling steps; None visits every level, whatever the spacing.
        spacing: which of the timesteps 0 to T - 1 are visited.

            - "leading": i T / n + offset, rounded down, for i < n: the choice of DDIM. Where n does not divide T, the
              schedulers of diffusers round the stride T / n down instead, and start lower by up to n - 1 timesteps:
              501 of 1,000 begin at timestep 500, which is no noise yet.
            - "trailing": T - i T / n - 1, rounded; from the last timestep on.
            - "linspace": from the last timestep to 0, evenly.
        offset: added to the timesteps of "leading", such as 1 for Stable Diffusion (`steps_offset`).

    Raises:
        Refused: if alphas_cumprod is none, n is not between 1 and the number of finite levels, or the spacing and the
            offset do not fit them.
    """
    sigmas = discrete_levels(alphas_cumprod)
    total, finite = len(sigmas), int(sigmas.isfinite().sum())
    if n is None:
        return _ending_in_zero(sigmas[:finite].flip(0))
    if not 1 <= n <= finite:
        raise Refused(f"{n} sampling steps do not fit a model of {finite} noise levels: choose 1 to {finite}")
    if spacing == "leading":
        steps = torch.arange(n) * total // n + offset
    elif spacing == "trailing":  # in NumPy, as in diffusers, so that ties are rounded alike; its arange may be too long
        steps = torch.from_numpy(np.arange(total, 0, -total / n)[:n].round()).long().flip(0) - 1
    elif spacing == "linspace":
        steps = torch.from_numpy(np.linspace(0, total - 1, n).round()).long() if n > 1 else torch.tensor([total - 1])
    else:
        raise Refused(f"timesteps are spaced 'leading', 'trailing' or 'linspace', not {spacing!r}")
    if offset and (spacing != "leading" or offset < 0 or steps[-1] >= total):
        raise Refused(
            f"an offset of {offset} does not fit {n} steps of {total} with spacing={spacing!r}: it belongs to "
            "'leading', and must leave the last timestep within the model's"
        )
    steps = steps.clamp(max=finite - 1)
    if (steps.diff() < 1).any():
        raise Refused(f"{n} steps of {total} with spacing={spacing!r} visit a level twice: choose fewer steps")
    return _ending_in_zero(sigmas[steps].flip(0))


def discrete_levels(alphas_cumprod: Shaped[Tensor, "..."]) -> Float[Tensor, " t"]:
    """sqrt(1/alpha_bar - 1), (T,), increasing, for alpha_bar (T,); inf where alpha_bar = 0.

    Raises:
        Refused: unless alpha_bar decreases from below 1 to 0 or above, T >= 2.
    """
    bar = torch.as_tensor(alphas_cumprod).detach().double()
    ok = bar.ndim == 1 and len(bar) >= 2 and bool(0 < bar[0] < 1 and bar[-1] >= 0)
    if not ok or not ((bar.diff() < 0) | (bar[1:] == 0)).all():
        ends = " to ".join(f"{value:.6g}" for value in bar.flatten()[[0, -1]].tolist()) if bar.numel() else "nothing"
        raise Refused(
            f"alphas_cumprod must be (T,), T >= 2, decreasing from below 1 to 0 or above, not {tuple(bar.shape)} from "
            f"{ends}: give the cumulative product of 1 - beta"
        )
    return (1 / bar - 1).sqrt()


def strength(alphas_cumprod: Float[Tensor, " t"], value: float) -> float:
    """The level at which image-to-image sampling of this strength starts, a float. Its grid ends in 0 as others do.

    A strength of s leaves out the first 1 - s of the timesteps: the pipelines of diffusers begin at timestep s T.

    Arguments:
        alphas_cumprod: alpha_bar (T,) of the model's training, as in `discrete`.
        value: the strength, above 0 and at most 1, which is the level of the last timestep.

    Raises:
        Refused: for another strength, and for one whose level is pure noise (alpha_bar = 0), which keeps no image.
    """
    sigmas = discrete_levels(alphas_cumprod)
    if not 0 < value <= 1:
        raise Refused(f"a strength is above 0 and at most 1, not {value}")
    level = float(sigmas[max(1, round(value * len(sigmas))) - 1])
    if not math.isfinite(level):
        raise Refused(f"a strength of {value} starts from pure noise in this model: give a smaller one")
    return level


def vp(n: int, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) levels of the VP SDE at n times evenly spaced in [t_min, 1], then 0. Song et al. 2021, eq. 33.

    Raises:
        Refused: if n < 1, unless 0 < t_min < 1, and for betas that leave no decreasing levels.
    """
    _check_range(n, t_min, 1.0, "t_min", "1")
    return _ending_in_zero(vp_sigma(torch.linspace(1.0, t_min, n, dtype=torch.float64), beta_min, beta_max))


def ve(n: int, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Float[Tensor, " {n}+1"]:
    """(n + 1,) geometric levels of the VE SDE, then 0. Song et al. 2021, eq. 30.

    Raises:
        Refused: if n < 1, or unless 0 < sigma_min < sigma_max.
    """
    _check_range(n, sigma_min, sigma_max)
    ramp = torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64)
    return _ending_in_zero(ramp.exp())


def vp_sigma(t: Float[Tensor, "*s"], beta_min: float = 0.1, beta_max: float = 20.0) -> Float[Tensor, "*s"]:
    """sqrt(exp(integral of beta) - 1), the VP sigma at times t in (0, 1] of any shape. Song et al. 2021, eq. 33."""
    return torch.expm1(0.5 * t**2 * (beta_max - beta_min) + t * beta_min).sqrt()


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    if not (sigmas.isfinite().all() and (sigmas > 0).all() and (sigmas.diff() < 0).all()):
        few = ", ".join(f"{level:g}" for level in sigmas[:3].tolist())
        raise Refused(f"these parameters give the levels {few} .., which must fall: give less extreme ones")
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _check_range(n: int, low: float, high: float, lower: str = "sigma_min", upper: str = "sigma_max") -> None:
    if n < 1:
        raise Refused(f"a sampler takes at least one step, not {n}")
    if not 0 < low < high < math.inf:
        raise Refused(f"a grid needs 0 < {lower} < {upper}, not {lower}={low} and {upper}={high}")


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
    return choose(sigmas[:-1], n, generator)
