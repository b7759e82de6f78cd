"""How good a completion is, measured where something was hidden and nowhere else.

Known pixels come out as they went in, so a measure of whole images credits a model with what it was given: on small
images a classifier recognises a forgotten class by its rim. Judges therefore see the hidden region alone, the rest at
0.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.completion.hidden import hide
from memlib.metrics import frechet_distance, inception_score


class Judge(NamedTuple):
    """Functions of standardised images (N, C, H, W): features (N, D) for the Frechet distance, class probabilities
    (N, K), and features (N, D') for the cosine; the paper's are Inception-v3's, its, and CLIP's."""

    embed: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    resemble: Callable[[Tensor], Tensor]


class Quality(NamedTuple):
    """Frechet distance and Inception score of a set of completions, and per image, (N,), the cosine to the truth and
    the mean squared error of its hidden pixels."""

    frechet: float
    inception: float
    cosine: Tensor
    error: Tensor


def region(images: Tensor, mask: Tensor) -> Tensor:
    """The hidden region of images (N, C, H, W) alone, everything known at 0, the mean of standardised images."""
    return hide(images, ~mask)


@torch.no_grad()
def quality(made: Tensor, truth: Tensor, mask: Tensor, judge: Judge) -> Quality:
    """Completions `made` against the images that they complete, (N, C, H, W) both, on the hidden region.

    Frechet distance and cosine are between features of the completed and of the true region (I2I sec. 4.1, there of
    whole images); the Inception score is of the completions alone, over one part. A Frechet distance of few images is
    biased upwards: compare it at equal N.
    """
    ours, theirs = region(made, mask), region(truth, mask)
    squares = (ours - theirs).square().flatten(1).sum(1)
    count = mask.expand(len(made), 1, *mask.shape[-2:]).flatten(1).sum(1) * made.shape[1]
    return Quality(
        frechet_distance(judge.embed(ours), judge.embed(theirs)),
        inception_score(judge.probabilities(ours), 1)[0],
        torch.cosine_similarity(judge.resemble(ours), judge.resemble(theirs)),
        squares / count,
    )
