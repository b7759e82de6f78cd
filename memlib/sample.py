"""Samplers: from noise to images along a decreasing grid of sigmas.

Each sampler comes in two forms: a generator of states (`*_path`), which the caller can plot or stop, and a function
that returns the last state. Sampling starts at x (B, *S), noise of standard deviation sigmas[0]; the data, which would
be added to it, are negligible there. `start` makes such an x. In the coordinates x = x_t / alpha_t, DDPM and DDIM are
one sampler with two values of the number eta.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, Variance, variance_of
from memlib.errors import Refused
from memlib.noise import Noise, seeded
from memlib.random import to_device
from memlib.shapes import Float, Shaped

Limit = Callable[[Tensor], Tensor]
"""A function of estimates of x0, (B, *S) -> (B, *S)."""


def start(
    sigmas: Float[Tensor, " n"],
    seeds: Sequence[int] | Shaped[Tensor, " b"],
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
    return sigmas[0] * seeded(seeds)(torch.empty(len(seeds), *shape, dtype=dtype, device=device))


def ancestral(
    denoiser: Denoiser,
    x: Float[Tensor, " b *s"],
    sigmas: Float[Tensor, " n"],
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
        Refused: for variance="large" where eta is not 1.
    """
    for state in ancestral_path(denoiser, x, sigmas, eta, noise, variance=variance, limit=limit):
        x = state
    return x


@torch.no_grad()
def ancestral_path(
    denoiser: Denoiser,
    x: Float[Tensor, " b *s"],
    sigmas: Float[Tensor, " n"],
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    *,
    variance: Variance | None = None,
    limit: Limit | None = None,
) -> Iterator[Tensor]:
    """The states of `ancestral`: x after each of the n - 1 steps, each a new (B, *S) tensor.

    `noise` is called once a step, except where no noise is added (eta = 0, or a step to sigma = 0).
    """
    if variance == "large" and eta != 1:
        raise Refused(f"the large variance belongs to DDPM, eta = 1, not to eta = {eta}: leave it out")
    large = eta == 1 and (variance or variance_of(denoiser)) == "large"
    # The coefficients are Python floats, so nothing in the loop waits for the device.
    levels, floats = to_device(sigmas, x.device, x.dtype), sigmas.tolist()
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


def heun(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigmas: Float[Tensor, " n"]) -> Float[Tensor, " b *s"]:
    """Sample (B, *S) by Heun's second-order method on the probability-flow ODE dx/dsigma = (x - D)/sigma.

    Karras et al. 2022, algorithm 1. A step evaluates the denoiser twice, and a step to sigma = 0 once.
    """
    for state in heun_path(denoiser, x, sigmas):
        x = state
    return x


@torch.no_grad()
def heun_path(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigmas: Float[Tensor, " n"]) -> Iterator[Tensor]:
    """The states of `heun`: x after each of the n - 1 steps, each a new (B, *S) tensor."""
    levels, floats = to_device(sigmas, x.device, x.dtype), sigmas.tolist()
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        slope = (x - denoiser(x, levels[i])) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = 0.5 * (slope + (euler - denoiser(euler, levels[i + 1])) / target)
            x = x + (target - sigma) * slope
        else:
            x = euler
        yield x
