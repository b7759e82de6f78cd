"""Are published images copies? The nearest member of each against the nearest ghost, and a search for planted copies.

A pipeline's ghosts are the images of the pool that it did not see. There are as many of them as of members, and a coin
chose them. So a published image that owes nothing to single members is as often nearer to a ghost as to a member. A
large distance to the nearest member alone proves no privacy: it may be as large to all images of the distribution.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from memlib import metrics
from memlib.features import Embed
from memlib.papers.synthesis.synthetic import Published
from memlib.random import keyed
from memlib.shapes import Bool, Float, Shaped

TOP = 5  # real images looked up for a published one; the paper shows three of them (G.4)


class Copies(NamedTuple):
    """Of every pipeline: how many of its M images are nearer to a member, and how many pass for copies.

    Attributes:
        nearer: (E,) fraction of published images whose nearest real image of the pool is a member.
        of_members, of_ghosts: (E,) fraction as similar to a member, or to a ghost, as the threshold says.
        threshold: the cosine that 1 % of held-out images reach with a member, (E,).
        planted: (E,) fraction of planted copies that pass.
    """

    nearer: Float[Tensor, " e"]
    of_members: Float[Tensor, " e"]
    of_ghosts: Float[Tensor, " e"]
    threshold: Float[Tensor, " e"]
    planted: Float[Tensor, " e"]


def find(
    published: Published,
    images: Shaped[Tensor, " n *s"],
    inside: Bool[Tensor, "e n"],
    held_out: Shaped[Tensor, " m *s"],
    embed: Embed,
    fpr: float = 0.01,
    jitter: float = 0.1,
    seed: int = 0,
) -> Copies:
    """Look for copies among the published images of every pipeline.

    Arguments:
        published: E sets.
        images: the pool (N, *S); row e of `inside` (E, N) has the members of pipeline e, all others are its ghosts.
        held_out: (M, *S), real images outside the pool; the threshold is the similarity that a fraction `fpr` of them
            reaches with a member.
        embed: images -> descriptors, fitted on neither.
        fpr: see held_out.
        jitter: deviation of the noise on planted copies of members, in units of the images' spread.
        seed: of that noise.
    """
    real, others = embed(images), embed(held_out)
    noisy = images + jitter * images.std() * torch.randn(images.shape, generator=keyed(seed, 0)).to(images)
    altered = embed(noisy)
    columns = []
    for made, seen in zip(published.images, inside, strict=True):
        found = embed(made)
        to_member, to_ghost = (metrics.nearest(found, real[side])[0][:, 0] for side in (seen, ~seen))
        limit = metrics.threshold(metrics.nearest(others, real[seen])[0][:, 0], fpr)
        caught = metrics.nearest(altered[seen], real[seen])[0][:, 0] >= limit
        tie = 0.5 * (to_member == to_ghost)
        rates = ((to_member > to_ghost) + tie, to_member >= limit, to_ghost >= limit)
        columns.append([*(float(one.double().mean()) for one in rates), limit, float(caught.double().mean())])
    return Copies(*torch.tensor(columns, dtype=torch.float64).T)


def look_up(
    published: Shaped[Tensor, " m *s"], images: Shaped[Tensor, " n *s"], embed: Embed, top: int = TOP
) -> tuple[Float[Tensor, "m top"], Tensor]:
    """The `top` most similar real images (N, *S) of each published one (M, *S): cosines and positions, (M, top)."""
    return metrics.nearest(embed(published), embed(images), top)
