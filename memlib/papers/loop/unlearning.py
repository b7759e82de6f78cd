"""Models trained side by side as one stack, and what lets each of them forget its own images.

The loss is SGU's (eq. 11): denoising on what is kept, another loss on what is forgotten. Here every network of a stack
has its own images on either side.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlib import losses, nets, noise, train
from memlib.denoiser import pair
from memlib.errors import Refused
from memlib.papers.sgu.study.arms import Arm
from memlib.papers.synthesis.generators import LEVELS, rows_of
from memlib.random import noise_from
from memlib.shapes import Bool, Float, Shaped


@dataclass(frozen=True)
class Recipe:
    """How a stack is trained.

    Attributes:
        steps: optimiser steps.
        lr: Adam's largest rate; it falls to 0 along a cosine.
        batch: images of each network a step, kept and forgotten together.
        alpha: weight of the kept images in the loss, SGU eq. 11.
        level: sigma about which images are forgotten: sigma* of the arm's weight.
        decay: of the running average of weights that is sampled; 0 is the weights of the last step.
        matching: weight of Real-Fake's matching term on the kept images (eq. 21), for each network's own batch.
    """

    steps: int
    lr: float
    batch: int
    alpha: float = 1.0
    level: float = 0.5
    decay: float = 0.99
    matching: float = 0.0


def forgetting(
    images: Float[Tensor, " n *s"],
    kept: Shaped[Tensor, "e n"],
    forgotten: Bool[Tensor, "e n"] | None,
    arm: Arm,
    how: Recipe,
) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss of a stack for `train.fit`: the sum over its networks of SGU's eq. 11.

    A quarter of each batch is forgotten images, drawn with replacement, if there is a loss on them.

    Arguments:
        images: (N, *S).
        kept: (E, N), how often network e is to see each image that it is to fit, in proportion; 0 is never.
        forgotten: (E, N), what it is to forget, or None.
        arm: the loss on these, and its weight at each level; an arm of chapter 4.
        how: see `Recipe`.

    Raises:
        Refused: for forgotten images without a loss, or the reverse, and for a network without images on a side.
    """
    if (forgotten is None) != (arm.forget_loss is None):
        raise Refused("unlearning needs both the images to forget and a loss on them: give both, or neither")
    for side, name in ((kept, "keep"), (forgotten, "forget")):
        if side is not None and not side.any(1).all():
            raise Refused(f"network {int((~side.any(1)).nonzero()[0])} has no image to {name}: give it one")
    lost = 0 if forgotten is None else how.batch // 4
    first = how.batch - lost

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = rows_of(kept.float(), first, generator)
        if forgotten is not None:
            rows = torch.cat((rows, rows_of(forgotten.float(), lost, generator)), 1)
        x0 = images[rows.flatten()]
        sigma = noise.as_level(noise.lognormal(len(x0), *LEVELS, generator), x0)
        eps_hat, eps = pair(stack, x0, sigma, noise_from(generator))
        fitted = losses.denoising(eps_hat, eps).unflatten(0, (len(kept), -1))[:, :first].mean(1)
        if how.matching:
            both = zip(*(one.unflatten(0, (len(kept), -1))[:, :first] for one in (eps_hat, eps)), strict=True)
            fitted = fitted + how.matching * torch.stack([losses.matching(*one) for one in both])
        if arm.forget_loss is None:
            return fitted.sum()
        weight = arm.weight(sigma, how.level, x0[0].numel())
        turned = (weight * arm.forget_loss(eps_hat, eps)).unflatten(0, (len(kept), -1))[:, first:].mean(1)
        return (how.alpha * fitted + (1 - how.alpha) * turned).sum()

    return loss


def fit(
    stack: nets.Stack,
    images: Float[Tensor, " n *s"],
    kept: Shaped[Tensor, "e n"],
    how: Recipe,
    seed: int,
    *,
    forgotten: Bool[Tensor, "e n"] | None = None,
    arm: Arm = Arm(),  # noqa: B008  # immutable: nothing is forgotten
    look: Callable[[int, nn.Module], object] | None = None,
    title: str = "training",
) -> nn.Module:
    """Train a stack in place by `forgetting`, and return its running average, frozen and in evaluation mode.

    Arguments:
        images, kept, forgotten, arm, how: as in `forgetting`, with (N, *S) and (E, N).
        seed: of all random numbers.
        look: called with the step and the average after each step, to measure on the way.
    """
    average = copy.deepcopy(stack)
    loss = forgetting(images, kept, forgotten, arm, how)
    options = {"lr": how.lr, "clip": None, "ema": average, "decay": how.decay, "seed": seed, "title": title}
    for step in train.fit(stack, loss, how.steps, **options):
        if look is not None:
            look(step.index + 1, average)
    return average.eval().requires_grad_(False)
