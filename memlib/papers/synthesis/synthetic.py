"""The images that a pipeline publishes: as many of each label as it has members, from noise or from its own members."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlib import noise, sample
from memlib.errors import Refused
from memlib.papers.synthesis.generators import conditioned
from memlib.papers.synthesis.pool import Pool
from memlib.shapes import Float, Int

LOWEST, HIGHEST = 0.02, 20.0  # levels of sampling, in units of the data's spread
_BLOCK = 1 << 15  # images sampled at once

_BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
STABLE_DIFFUSION = torch.cumprod(1 - _BETAS, 0)
"""alpha_bar (1000,) of Stable Diffusion 1.5, whose strengths the paper states (table 6)."""


class Published(NamedTuple):
    """Synthetic sets of E pipelines, M images each: images (E, M, *S) and the labels that were asked for, (E, M).

    `members` (E, M) is the position in the pool of the member that gave the label, and the start if it was not noise.
    """

    images: Float[Tensor, "e m *s"]
    labels: Int[Tensor, "e m"]
    members: Int[Tensor, "e m"]


def level(strength: float, spread: float) -> float:
    """The level at which image-to-image of this strength starts, for data of this spread.

    On the schedule of Stable Diffusion 1.5, whose latents have unit spread, 0.25, 0.5 and 0.75 are sigma 0.69, 1.61 and
    4.08. A strength of 1 starts from noise here.
    """
    return spread * (HIGHEST if strength == 1 else noise.strength(STABLE_DIFFUSION, strength))


def publish(
    stack: nn.Module,
    pool: Pool,
    inside: Tensor,
    *,
    strength: float = 1.0,
    guidance: float = 1.0,
    times: int = 1,
    steps: int = 18,
    seed: int = 0,
) -> Published:
    """The synthetic sets of the pipelines that have the members `inside` (E, N): `times` images for each member.

    Image j of pipeline e has the label of its member j, so the counts of labels are those of the members. With
    `times` = k the first 1/k of the set is the set of `times` = 1.

    Arguments:
        stack: E class-conditional denoisers.
        pool: the images.
        inside: (E, N), whether a pipeline has the image; every pipeline has as many.
        strength: 1 starts from noise; less starts from the member itself, with noise of that `level`: the paper's
            latent prior, section 3.2 and table 6.
        guidance: weight of classifier-free guidance; 2.0 in table 6.
        times: images for each member.
        steps: of Heun's method.
        seed: of the noise.

    Raises:
        Refused: unless all pipelines have equally many members.
    """
    sizes = inside.sum(1)
    if (sizes != sizes[0]).any():
        raise Refused(
            f"pipelines have {int(sizes.min())} to {int(sizes.max())} members: sets of one stack need equal sizes"
        )
    count, size = len(inside), int(sizes[0])
    members = inside.nonzero()[:, 1].reshape(count, size)
    like, spread = pool.images[:0], float(pool.images.std())
    grid = noise.karras(steps, LOWEST * spread, level(strength, spread))
    rounds = []
    for k in range(times):
        seeds = (seed * 1_000_003 + k) * count * size + torch.arange(count * size)
        if strength == 1:
            start = sample.start(grid, seeds, like.shape[1:], dtype=like.dtype, device=like.device)
        else:
            start = sample.start_from(pool.images[members.flatten()], grid, seeds)
        y = pool.labels[members]
        parts = zip(*(_columns(part, count, size) for part in (start, y.flatten())), strict=True)
        made = [sample.heun(conditioned(stack, labels, guidance), x, grid) for x, labels in parts]
        rounds.append(torch.cat([one.unflatten(0, (count, -1)) for one in made], 1))
    repeated = members.repeat(1, times)
    return Published(torch.cat(rounds, 1), pool.labels[repeated], repeated)


def _columns(values: Tensor, count: int, size: int) -> list[Tensor]:
    """Rows (E M, *S) in parts (E m, *S) of a few images of every pipeline, so that a large set fits into memory."""
    each = max(1, min(size, _BLOCK // count))
    return [part.flatten(0, 1) for part in values.unflatten(0, (count, size)).split(each, 1)]
