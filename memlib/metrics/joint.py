"""One threshold for two measures of resemblance, at one false-positive rate.

A cosine does not see length, so it calls a caricature of a training image a copy. A distance does not see that a faint
image has the right content. A copy should pass both tests, and together they should pass held-out images at one rate.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.shapes import Bool, Shaped

_SLACK = 1e-9  # a fraction times a size may miss the whole number that was meant by a rounding error


class Joint(NamedTuple):
    """A copy has a similarity of at least `similarity` and a distance of at most `distance`; an infinite distance asks
    for the similarity alone."""

    similarity: float
    distance: float

    def passed(self, similarity: Tensor, distance: Tensor) -> Bool[Tensor, "*s"]:
        """Which samples pass both, for two tensors of one shape, such as (N,). NaN passes neither."""
        return (similarity >= self.similarity) & (distance <= self.distance)


@takes_arrays("similarity", "distance")
def joint_threshold(similarity: Shaped[Tensor, "..."], distance: Shaped[Tensor, "..."], fpr: float) -> Joint:
    """The widest pair of thresholds of equal rank that at most a fraction `fpr` of these held-out images passes.

    Both measures become ranks among the M images: an image has rank r if r of them, itself and ties included, are at
    least as similar, or at least as near. Its joint rank is the worse of the two. The thresholds lie at the largest
    rank r that at most `fpr` M images reach in both measures, so each test alone lets the same number through, and
    neither decides more than the other. The statement is exact for these images, ties included. If both measures order
    the images alike, the result is the threshold of either; if they are independent, each lets about sqrt(fpr) through.

    Arguments:
        similarity: (M,), of held-out images to the training image that each is nearest to.
        distance: (M,), of the same images to the same training images.
        fpr: the joint false-positive rate, between 0 and 1.

    Raises:
        Refused: for fewer than 1/fpr images, for other shapes and for NaN. Also if ties leave no rank.
    """
    size = len(similarity) if similarity.dim() == 1 else 0
    if not size or similarity.shape != distance.shape:
        given = f"{tuple(similarity.shape)} and {tuple(distance.shape)}"
        raise Refused(f"a joint threshold needs two measures (M,) of the same images, not {given}")
    if not 0 < fpr < 1:
        raise Refused(f"a false-positive rate lies between 0 and 1, both excluded, but was {fpr}")
    if similarity.isnan().any() or distance.isnan().any():
        raise Refused("the measures contain NaN, which has no rank: look at the features they came from")
    allowed = math.floor(fpr * size + _SLACK)
    if allowed < 1:
        raise Refused(f"{size} held-out images cannot resolve a rate of {fpr}: give at least {math.ceil(1 / fpr)}")
    joint = torch.maximum(_ranks(-similarity), _ranks(distance)).sort().values
    rank = int(joint[allowed]) - 1  # the largest that no more than `allowed` images reach
    if rank < 1:
        raise Refused(f"{allowed + 1} held-out images tie for the first rank: put all copies of an image into one part")
    return Joint(-_edge(-similarity, rank), _edge(distance, rank))


def _ranks(values: Tensor) -> Tensor:
    """How many of the values (M,) are at most each one, (M,); ties share the last rank."""
    return torch.searchsorted(values.sort().values, values, right=True)


def _edge(values: Tensor, rank: int) -> float:
    """The largest edge that at most `rank` of the values (M,), fewer than all, lie at or below: just below the next."""
    following = values.sort().values[rank]
    return float(torch.nextafter(following, torch.full_like(following, -math.inf)))
