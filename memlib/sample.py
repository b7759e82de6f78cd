"""Samplers: walk a decreasing grid of sigmas from noise to image.

Each sampler is a generator of states (`*_path`), so that the caller may draw, stop or resume it, and a function that
returns the last one. The start x (B, *S) is noise of standard deviation sigmas[0] (plus the data, which is small beside
it), as `start` draws it. In these coordinates, x = x_t / alpha_t, DDPM and DDIM are two values of
one number, eta.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memlib.denoiser import Denoiser
from memlib.noise import Noise, seeded
from memlib.shapes import Float


def start(
    sigmas: Tensor,
    seeds: Sequence[int] | Tensor,
    shape: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Where sampling starts, (B, *S): sigmas[0] times the first noise of each of B seeds (`noise.seeded`).

    Sample i is named by seeds[i]: it starts at the same place in every batch. `shape` is S; dtype and device are
    torch's defaults unless given. A sampler with eta > 0 draws further noise: give it a `noise.seeded` of its own, and
    start from that one's first call instead.
    """
    return sigmas[0] * seeded(seeds)(torch.empty(len(seeds), *shape, dtype=dtype, device=device))


def ancestral(
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    sigmas: Float[Tensor, " n"],
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
) -> Float[Tensor, "b *s"]:
    """Sample (B, *S) at sigmas[-1] from x (B, *S) at sigmas[0]: eta = 0 is DDIM, eta = 1 is DDPM.

    Song et al. 2021 (DDIM), eq. 12 and 16; Ho et al. 2020, eq. 7. Equal to the Euler step of the probability-flow ODE
    in sigma for eta = 0, and to a draw from the Brownian bridge between x and D for eta = 1.
    """
    for state in ancestral_path(denoiser, x, sigmas, eta, noise):
        x = state
    return x


@torch.no_grad()
def ancestral_path(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, eta: float = 0.0, noise: Noise = torch.randn_like
) -> Iterator[Tensor]:
    """The states of `ancestral`: x after each of the len(sigmas) - 1 steps, each a new (B, *S) tensor.

    `noise` is called once a step, except where none is due (eta = 0, or a step to sigma = 0).
    """
    levels, floats = sigmas.to(x), sigmas.tolist()  # coefficients as Python floats: no device sync in the loop
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        fresh = eta * target * math.sqrt(1 - (target / sigma) ** 2)  # std of new noise
        kept = math.sqrt(target**2 - fresh**2)  # std of the noise that x keeps
        x = torch.lerp(denoiser(x, levels[i]), x, kept / sigma)  # D + (kept / sigma) (x - D)
        if fresh > 0:
            x = x + fresh * noise(x)
        yield x


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Sample (B, *S) by Heun's second-order method on the probability-flow ODE dx/dsigma = (x - D)/sigma.

    Karras et al. 2022, algorithm 1; two evaluations a step, one on a step to sigma = 0.
    """
    for state in heun_path(denoiser, x, sigmas):
        x = state
    return x


@torch.no_grad()
def heun_path(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
    """The states of `heun`: x after each of the len(sigmas) - 1 steps, each a new (B, *S) tensor."""
    levels, floats = sigmas.to(x), sigmas.tolist()
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        slope = (x - denoiser(x, levels[i])) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = 0.5 * (slope + (euler - denoiser(euler, levels[i + 1])) / target)
            x = x + (target - sigma) * slope
        else:
            x = euler
        yield x
