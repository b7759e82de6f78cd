"""Inpainting and reconstruction with a model that was trained for neither.

Both test an unlearned model more severely than sampling does, since the model sees part of a forgotten image. A mask is
bool, True where a pixel is hidden: (1, H, W), (B, 1, H, W), or another shape that broadcasts to (B, *S). Networks are
in evaluation mode while they are called here.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, evaluated
from memlib.errors import Refused
from memlib.noise import Grid, Noise, add_noise, as_level, levels_of
from memlib.random import to_device
from memlib.shapes import Bool, Float, Shaped


def inpaint(
    denoiser: Denoiser,
    x0: Float[Tensor, " b *s"],
    hidden: Shaped[Tensor, "..."],
    sigmas: Grid,
    repeats: int = 1,
    noise: Noise = torch.randn_like,
) -> Float[Tensor, " b *s"]:
    """Fill the hidden pixels of x0 (B, *S); the known pixels are returned bit for bit, (B, *S).

    At each level the known pixels are replaced by those of x0 noised to that level, and then the whole image takes one
    ancestral step with eta = 1 (Song et al. 2021, appendix I.2). All pixels start as noise of standard deviation
    sigmas[0], and the last denoising includes the hidden pixels; the published score_sde differs in both. To fill an
    image in several ways, repeat it along the batch and give every row its own noise (`noise.seeded`).

    Arguments:
        denoiser: D(x, sigma).
        x0: images; their hidden pixels are not read.
        hidden: the mask, bool, of a shape that broadcasts to (B, *S).
        sigmas: decreasing levels (n,) that end in 0.
        repeats: how often each step but the last is taken. After each but the last repetition the image is noised back
            to the level before the step, so that hidden and known pixels come to agree: RePaint, Lugmayr et al. 2022,
            algorithm 1, with jumps of one step.
        noise: the source of noise.

    Raises:
        Refused: if the mask is not bool or does not fit, the grid rises or does not end in 0, or repeats < 1.
    """
    for state in inpaint_path(denoiser, x0, hidden, sigmas, repeats, noise):
        x = state
    return x


@torch.no_grad()
def inpaint_path(
    denoiser: Denoiser,
    x0: Float[Tensor, " b *s"],
    hidden: Shaped[Tensor, "..."],
    sigmas: Grid,
    repeats: int = 1,
    noise: Noise = torch.randn_like,
) -> Iterator[Tensor]:
    """The states of `inpaint`: x after each of the n - 1 steps, each a new (B, *S) tensor."""
    hidden = to_device(_fitting(hidden, x0), x0.device)
    floats = levels_of(sigmas)
    levels, denoiser = to_device(torch.tensor(floats, dtype=x0.dtype), x0.device), evaluated(denoiser)
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
    denoiser: Denoiser,
    x0: Float[Tensor, " b *s"],
    sigma: float,
    sigmas: Grid,
    noise: Noise = torch.randn_like,
) -> Float[Tensor, " b *s"]:
    """Add noise of level `sigma` to x0 (B, *S) and remove it by DDIM on the levels of `sigmas` below it, (B, *S).

    SGU sec. 4.3 takes t = 0.02 of the VP SDE, which is `noise.vp_sigma(t)` = 0.078. At so low a level the image is
    still clear, so a good reconstruction says little about what the model remembers.

    Raises:
        Refused: if sigma is not positive, or the levels rise.
    """
    if not 0 < sigma < math.inf:
        raise Refused(f"an image is reconstructed from noise of a positive level, not sigma={sigma}")
    below = [level for level in torch.as_tensor(sigmas).tolist() if level < sigma]
    floats = levels_of([float(sigma), *below, *([] if below[-1:] == [0] else [0.0])])
    x, denoiser = add_noise(x0, sigma, noise), evaluated(denoiser)
    for here, target in zip(floats, floats[1:], strict=False):
        x = torch.lerp(denoiser(x, as_level(here, x)), x, target / here)
    return x


# Masks: (1, H, W), or (B, 1, H, W) where each image has its own.


def upper_half(size: int) -> Bool[Tensor, "1 {size} {size}"]:
    """A mask that hides the upper half, (1, size, size). SGU sec. 4.3, where it hides the bangs."""
    hidden = torch.zeros(1, size, size, dtype=torch.bool)
    hidden[:, : size // 2] = True
    return hidden


def central_box(size: int, fraction: float = 0.5) -> Bool[Tensor, "1 {size} {size}"]:
    """A mask that hides a central square of round(fraction * size) pixels a side, (1, size, size)."""
    wide = round(fraction * size)
    if not 0 < wide < size:
        raise Refused(f"a box of {fraction} of {size} pixels hides nothing or all: give a fraction in between")
    hidden, start = torch.zeros(1, size, size, dtype=torch.bool), (size - wide) // 2
    hidden[:, start : start + wide, start : start + wide] = True
    return hidden


def scattered(size: int, known: float, n: int, generator: torch.Generator) -> Bool[Tensor, "{n} 1 {size} {size}"]:
    """Masks that leave a random fraction `known` of the pixels of each of n images, (n, 1, size, size)."""
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
