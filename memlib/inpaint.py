"""Inpainting and reconstruction with a model that was trained for neither: zero-shot, by what is fed to the sampler.

Both ask an unlearned model a harder question than sampling does, since part of a forgotten image is put before it. A
mask is bool, True where a pixel is hidden: (1, H, W) or (B, 1, H, W), or another shape that broadcasts to (B, *S).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from memlib.denoiser import Denoiser
from memlib.errors import Refused
from memlib.noise import Noise, add_noise


def inpaint(
    denoiser: Denoiser,
    x0: Tensor,
    hidden: Tensor,
    sigmas: Tensor,
    repeats: int = 1,
    noise: Noise = torch.randn_like,
) -> Tensor:
    """Fill what is `hidden` of x0 (B, *S); what is known comes back bit for bit, (B, *S).

    At each level the known part is replaced by x0 noised to that level, and the whole moves one ancestral step down,
    eta = 1 (Song et al. 2021, appendix I.2). It starts as noise of the prior's standard deviation, sigmas[0], known
    part included, and the last denoising reaches the hole: neither holds for the published score_sde. With repeats > 1
    each step but the last is noised up again and taken anew, so that the hole and its surroundings can agree: RePaint,
    Lugmayr et al. 2022, algorithm 1, with jumps of one step.

    Several fillings of an image: repeat it along the batch, and let every row have its own noise (`noise.seeded`).
    Values of x0 in the hole are not read. Raises Refused for a mask that is not bool or does not fit, and for a grid
    that does not end in 0.
    """
    for state in inpaint_path(denoiser, x0, hidden, sigmas, repeats, noise):
        x = state
    return x


@torch.no_grad()
def inpaint_path(
    denoiser: Denoiser,
    x0: Tensor,
    hidden: Tensor,
    sigmas: Tensor,
    repeats: int = 1,
    noise: Noise = torch.randn_like,
) -> Iterator[Tensor]:
    """The states of `inpaint`: x after each of the len(sigmas) - 1 steps, each a new (B, *S) tensor."""
    hidden = _fitting(hidden, x0).to(x0.device)
    levels, floats = sigmas.to(x0), sigmas.tolist()
    if len(floats) < 2 or floats[-1] != 0:
        raise Refused(f"an inpainted image is clean only where the grid ends in 0, not in {floats[-1]}: append it")
    if repeats < 1:
        raise Refused(f"each step is taken at least once, not {repeats} times")
    x0 = torch.where(hidden, torch.zeros_like(x0), x0)
    x = floats[0] * noise(x0)
    for i, (sigma, target) in enumerate(zip(floats, floats[1:], strict=False)):
        for again in reversed(range(repeats if target > 0 else 1)):
            x = torch.where(hidden, x, add_noise(x0, sigma, noise))
            mean = denoiser(x, levels[i])
            if target > 0:
                ratio = (target / sigma) ** 2
                x = torch.lerp(mean, x, ratio) + target * math.sqrt(1 - ratio) * noise(x)  # the Brownian bridge
            else:
                x = mean
            if again:
                x = x + math.sqrt(sigma**2 - target**2) * noise(x)
        if target == 0:
            x = torch.where(hidden, x, x0)
        yield x


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser, x0: Tensor, sigma: float, sigmas: Tensor, noise: Noise = torch.randn_like
) -> Tensor:
    """x0 (B, *S) noised to `sigma` and denoised again by DDIM on the levels of `sigmas` below it, (B, *S).

    What a model makes of an image that it is nearly shown. SGU sec. 4.3 takes t = 0.02 of the VP SDE, which is
    `noise.vp_sigma(t)` = 0.078: little noise, of which little can be learnt where the image is already clear.
    Raises Refused for a sigma that is not positive.
    """
    if not sigma > 0:
        raise Refused(f"an image is reconstructed from noise of a positive level, not sigma={sigma}")
    floats = [float(sigma), *[level for level in sigmas.tolist() if level < sigma]]
    if floats[-1] != 0:
        floats.append(0.0)
    x = add_noise(x0, sigma, noise)
    for here, target in zip(floats, floats[1:], strict=False):
        x = torch.lerp(denoiser(x, torch.tensor(here, dtype=x.dtype, device=x.device)), x, target / here)
    return x


# What is hidden: masks (1, H, W), or (B, 1, H, W) where each image has its own.


def upper_half(size: int) -> Tensor:
    """The upper half is hidden, (1, size, size): SGU sec. 4.3, where it hides the bangs."""
    hidden = torch.zeros(1, size, size, dtype=torch.bool)
    hidden[:, : size // 2] = True
    return hidden


def central_box(size: int, fraction: float = 0.5) -> Tensor:
    """A central square of round(fraction * size) pixels a side is hidden, (1, size, size)."""
    wide = round(fraction * size)
    if not 0 < wide < size:
        raise Refused(f"a box of {fraction} of {size} pixels hides nothing or all: give a fraction in between")
    hidden, start = torch.zeros(1, size, size, dtype=torch.bool), (size - wide) // 2
    hidden[:, start : start + wide, start : start + wide] = True
    return hidden


def scattered(size: int, known: float, n: int, generator: torch.Generator) -> Tensor:
    """All but a random fraction `known` of the pixels is hidden, drawn for each of n images, (n, 1, size, size)."""
    if not 0 < known < 1:
        raise Refused(f"the fraction of known pixels lies between 0 and 1, not at {known}")
    place = torch.rand(n, size * size, generator=generator).argsort(1)
    return (place >= round(known * size * size)).reshape(n, 1, size, size)


def _fitting(hidden: Tensor, x0: Tensor) -> Tensor:
    """The mask as (B, *S), or Refused."""
    if hidden.dtype != torch.bool:
        raise Refused(f"a mask is bool, True where a pixel is hidden, not {hidden.dtype}: compare it with something")
    try:
        return hidden.expand(x0.shape)
    except RuntimeError:
        shapes = f"{tuple(hidden.shape)} does not broadcast to the images, {tuple(x0.shape)}"
        raise Refused(f"a mask of shape {shapes}: give (1, H, W) or (B, 1, H, W)") from None
