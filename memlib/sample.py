"""Samplers: from noise to images along a decreasing grid of sigmas.

Each sampler comes in two forms: a generator of states (`*_path`), which the caller can plot or stop, and a function
that returns the last state. Sampling starts at x (B, *S), noise of standard deviation sigmas[0]; the data, which would
be added to it, are negligible there. `start` makes such an x. In the coordinates x = x_t / alpha_t, DDPM and DDIM are
one sampler with two values of the number eta.

Networks are in evaluation mode while a sampler calls them, and in their own mode afterwards.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from memlib.denoiser import Denoiser, Variance, evaluated, variance_of
from memlib.errors import Refused
from memlib.noise import Grid, Noise, add_noise, levels_of, seeded
from memlib.random import to_device
from memlib.shapes import Float, Shaped

Limit = Callable[[Tensor], Tensor]
"""A function of estimates of x0, (B, *S) -> (B, *S)."""


def start(
    sigmas: Grid,
    seeds: Sequence[int] | np.ndarray | Shaped[Tensor, " b"],
    shape: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, " b *s"]:
    """The start of sampling, (B, *S): sigmas[0] times the first noise of each of B seeds (`noise.seeded`).

    A sampler with eta > 0 needs more noise in every step. Make one `fresh = noise.seeded(seeds)` then, start from
    `sigmas[0] * fresh(torch.empty(B, *shape))` instead of this function, and pass `fresh` to the sampler.

    Arguments:
        sigmas: the grid (n,) of the sampler.
        seeds: B integers, the names of the samples: sample i starts at the same place in every batch.
        shape: S, the shape of one sample.
        dtype: by default that of torch.
        device: by default that of torch.
    """
    return levels_of(sigmas)[0] * seeded(seeds)(torch.empty(len(seeds), *shape, dtype=dtype, device=device))


def start_from(
    images: Float[Tensor, " b *s"], sigmas: Grid, seeds: Sequence[int] | np.ndarray | Shaped[Tensor, " b"]
) -> Float[Tensor, " b *s"]:
    """The start of image-to-image sampling, (B, *S): images (B, *S) with noise of level sigmas[0]. SDEdit, Meng et al.
    2022, alg. 1.

    The level is what other libraries call strength: `noise.strength` converts. The lower it is, the more of the image
    is left. B seeds name the noise, as in `start`.
    """
    return add_noise(images, levels_of(sigmas)[0], seeded(seeds))


def ancestral(
    denoiser: Denoiser,
    x: Float[Tensor, " b *s"],
    sigmas: Grid,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    *,
    variance: Variance | None = None,
    limit: Limit | None = None,
) -> Float[Tensor, " b *s"]:
    """Sample (B, *S) at level sigmas[-1] from x (B, *S) at level sigmas[0] by DDIM, DDPM or a sampler between them.

    Song et al. 2021 (DDIM), eq. 12 and 16; Ho et al. 2020, eq. 7. A step with eta = 0 is the Euler step in sigma of the
    probability-flow ODE. A step with eta = 1 samples the Brownian bridge between x and D.

    Arguments:
        denoiser: D(x, sigma).
        x: noise of standard deviation sigmas[0].
        sigmas: decreasing levels (n,), usually ending in 0.
        eta: 0 is DDIM, 1 is DDPM.
        noise: the source of new noise, once a step if eta > 0.
        variance: of the new noise at eta = 1; Ho et al. 2020, sec. 3.2. "small" is that of the bridge, "large" that of
            the forward process (`fixed_large` of diffusers); the mean is the same. None is what the denoiser says, an
            adapter that of its folder's scheduler, and "small" for all others. No step to sigma = 0 adds noise (Ho et
            al. 2020, alg. 2; DDPMScheduler does under `fixed_large` where its last timestep is not 0).
        limit: applied to D, as in x0.clamp(-1, 1), but not to the direction x - D in which the noise is kept: the
            default of DDIMPipeline, `limit=D.limit` for an adapter. Limit the denoiser itself
            (`denoiser.limited`) for DDPMPipeline, or for DDIM with `use_clipped_model_output=True`.

    Raises:
        Refused: for levels that do not decrease to the last, an eta outside [0, 1], an x that is not finite, and for
            variance="large" where eta is not 1.

    Warns:
        UserWarning: for an x much smaller than sigmas[0], or much larger than it where the data are negligible.
    """
    for state in ancestral_path(denoiser, x, sigmas, eta, noise, variance=variance, limit=limit):
        x = state
    return x


@torch.no_grad()
def ancestral_path(
    denoiser: Denoiser,
    x: Float[Tensor, " b *s"],
    sigmas: Grid,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    *,
    variance: Variance | None = None,
    limit: Limit | None = None,
) -> Iterator[Tensor]:
    """The states of `ancestral`: x after each of the n - 1 steps, each a new (B, *S) tensor.

    `noise` is called once a step, except where no noise is added (eta = 0, or a step to sigma = 0).
    """
    if not 0 <= eta <= 1:
        raise Refused(f"eta is {eta}: give 0 (DDIM) to 1 (DDPM)")
    if variance == "large" and eta != 1:
        raise Refused(f"the large variance belongs to DDPM, eta = 1, not to eta = {eta}: leave it out")
    large = eta == 1 and (variance or variance_of(denoiser)) == "large"
    # The coefficients are Python floats, so nothing in the loop waits for the device.
    floats = levels_of(sigmas)
    levels, denoiser = to_device(torch.tensor(floats, dtype=x.dtype), x.device), evaluated(denoiser)
    _check_start(x, floats[0])
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        fresh = eta * target * math.sqrt(1 - (target / sigma) ** 2)  # std of new noise
        kept = math.sqrt(target**2 - fresh**2)  # std of the noise that x keeps
        mean = denoiser(x, levels[i])
        x = torch.lerp(mean, x, kept / sigma)  # D + (kept / sigma) (x - D)
        if limit is not None:
            x = x + (limit(mean) - mean)
        if large and target > 0:  # beta_t divided by alpha_bar of the target
            fresh = math.sqrt((1 + target**2) * (sigma**2 - target**2) / (1 + sigma**2))
        if fresh > 0:
            x = x + fresh * noise(x)
        yield x


def heun(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigmas: Grid) -> Float[Tensor, " b *s"]:
    """Sample (B, *S) by Heun's second-order method on the probability-flow ODE dx/dsigma = (x - D)/sigma.

    Karras et al. 2022, algorithm 1. A step evaluates the denoiser twice, and a step to sigma = 0 once. It refuses
    and warns as `ancestral` does.
    """
    for state in heun_path(denoiser, x, sigmas):
        x = state
    return x


@torch.no_grad()
def heun_path(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigmas: Grid) -> Iterator[Tensor]:
    """The states of `heun`: x after each of the n - 1 steps, each a new (B, *S) tensor."""
    floats = levels_of(sigmas)
    _check_start(x, floats[0])
    yield from _heun_steps(evaluated(denoiser), x, floats)


@torch.no_grad()
def encode(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigmas: Grid) -> Float[Tensor, " b *s"]:
    """The latent (B, *S) at level sigmas[0] of x (B, *S) at the last level: `heun` run upwards. Song et al. 2021, D.4.

    Sampling on the same grid leads back, up to the error of the steps.

    Arguments:
        denoiser: D(x, sigma).
        x: data with noise of the last level.
        sigmas: decreasing levels (n,) above 0.

    Raises:
        Refused: for levels that rise, are not finite, or end in 0.
    """
    floats = levels_of(sigmas)
    if floats[-1] == 0:
        raise Refused("the flow has no slope at sigma = 0: give levels that end above it, as sigmas[:-1]")
    for state in _heun_steps(evaluated(denoiser), x, floats[::-1]):
        x = state
    return x


def _heun_steps(denoiser: Denoiser, x: Tensor, floats: list[float]) -> Iterator[Tensor]:
    levels = to_device(torch.tensor(floats, dtype=x.dtype), x.device)
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        slope = (x - denoiser(x, levels[i])) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = 0.5 * (slope + (euler - denoiser(euler, levels[i + 1])) / target)
            x = x + (target - sigma) * slope
        else:
            x = euler
        yield x


def _check_start(x: Tensor, sigma: float) -> None:
    """One look at x before the first step, since a start of another size gives images of nothing, or of one image."""
    if sigma == 0 or not x.numel():
        return
    size = sigma * float((x.detach().float() / sigma).square().mean().sqrt())
    if not math.isfinite(size):
        raise Refused("the start x is not finite: make one with sample.start")
    # The mean square of few coordinates varies: five standard deviations of it are no fault.
    small = size < sigma * min(0.5, 1 - 5 / math.sqrt(2 * x.numel()))
    large = size > 2 * sigma and sigma >= 10  # at lower levels the data may be as large
    if small or large:
        warnings.warn(
            f"the start x has root mean square {size:.3g} where the grid starts at sigma = {sigma:.3g}: give "
            "sigmas[0] times standard normal noise, as sample.start does",
            stacklevel=4,
        )
