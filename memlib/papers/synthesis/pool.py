"""A pool of images, dealt to pipelines by a coin: random halves and their complements, with canaries among them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memlib import membership
from memlib.errors import Refused
from memlib.random import keyed
from memlib.shapes import Int, Shaped

PLAIN, MISLABELLED, REPEATED = range(3)
KINDS = ("plain", "mislabelled", "repeated")


class Canaries(NamedTuple):
    """Images that a model has reason to remember: `mislabelled` ones, and `repeated` ones, seen `times` as often."""

    mislabelled: int
    repeated: int
    times: int


@dataclass(frozen=True)
class Pool:
    """N images of which each of T pipelines is trained on about half, and nothing else of the images it is judged by.

    Attributes:
        images: (N, *S), in the coordinates of the networks.
        labels: (N,), in 0 .. classes - 1: those that a pipeline is given, which are wrong for mislabelled canaries.
        copies: (N,), how often a pipeline that has the image sees it in one pass.
        kind: (N,), PLAIN, MISLABELLED or REPEATED.
        inside: (T, N), whether a pipeline has the image; pipeline 2k + 1 has what pipeline 2k has not.
        classes: the number of labels.
    """

    images: Tensor
    labels: Tensor
    copies: Tensor
    kind: Tensor
    inside: Tensor
    classes: int

    @property
    def pipelines(self) -> int:
        """T."""
        return len(self.inside)

    def counts(self) -> Int[Tensor, "t classes"]:
        """How many members of each label every pipeline has, (T, classes)."""
        return self.inside.long() @ torch.nn.functional.one_hot(self.labels, self.classes)


def deal(
    images: Shaped[Tensor, " n *s"],
    labels: Int[Tensor, " n"],
    classes: int,
    pairs: int,
    canaries: Canaries,
    seed: int,
) -> Pool:
    """Choose the canaries, and deal the pool to 2 * pairs pipelines.

    Every image is in exactly half of the pipelines, by a fair coin that knows nothing of the image. So whatever tells
    members from others must come from a model.

    Arguments:
        images: (N, *S), N even, without copies of one another.
        labels: (N,), in 0 .. classes - 1.
        classes: the number of labels.
        pairs: halves to draw; each brings its complement.
        canaries: how many; they are chosen anew by each seed.
        seed: of all draws.

    Raises:
        Refused: for an odd number of images, more canaries than half of them, and one class where labels are to be
            wrong.
    """
    n = len(images)
    if n % 2:
        raise Refused(f"{n} images have no halves of equal size: leave one out")
    if canaries.mislabelled + canaries.repeated > n // 2:
        raise Refused(
            f"{canaries.mislabelled} mislabelled and {canaries.repeated} repeated images are more than half of {n}: "
            "give fewer canaries, or more images"
        )
    if canaries.mislabelled and classes < 2:
        raise Refused("an image of a single class cannot have a wrong label: give two classes, or mislabelled=0")
    draw = keyed(seed, 0)
    order = torch.randperm(n, generator=draw)
    wrong, often, _ = order.split(
        [canaries.mislabelled, canaries.repeated, n - canaries.mislabelled - canaries.repeated]
    )
    kind = torch.full((n,), PLAIN)
    kind[wrong], kind[often] = MISLABELLED, REPEATED
    given = labels.cpu().clone()
    shift = torch.randint(1, max(2, classes), (len(wrong),), generator=draw)
    given[wrong] = (given[wrong] + shift) % classes
    copies = torch.ones(n)
    copies[often] = canaries.times
    inside = membership.halves(n, pairs, draw)
    device = images.device
    return Pool(images, given.to(device), copies.to(device), kind.to(device), inside.to(device), classes)
