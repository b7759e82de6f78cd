"""One class-conditional denoiser for each pipeline, all trained as one stack."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from memlib import losses, nets, noise, train
from memlib.denoiser import Denoiser, classifier_free, pair
from memlib.papers.synthesis.pool import Pool
from memlib.random import noise_from, to_device
from memlib.shapes import Bool, Int, Shaped

DROPPED = 0.1  # fraction of labels that training drops. Ho & Salimans 2022, sec. 4
LEVELS = (-0.5, 1.2)  # mean and deviation of ln sigma in training


@dataclass(frozen=True)
class Network:
    """A residual MLP for samples of `shape`: its width, blocks and labels, and the spread of the data."""

    shape: tuple[int, ...]
    width: int
    blocks: int
    classes: int
    spread: float


@dataclass(frozen=True)
class Training:
    """Optimiser steps, images a step and the largest learning rate of each network of a stack."""

    steps: int
    batch: int
    lr: float


def build(network: Network, count: int) -> nets.Stack:
    """`count` untrained networks, with weights from torch's generator."""
    return nets.Stack(
        [
            nets.Preconditioned(
                nets.ResidualMLP(network.shape, network.width, network.blocks, network.classes), network.spread
            )
            for _ in range(count)
        ]
    )


def fit(
    stack: nn.Module, pool: Pool, inside: Bool[Tensor, "e n"], how: Training, seed: int, checkpoint: str | None = None
) -> nn.Module:
    """Train network e on the members of row e of `inside` (E, N), repeated ones more often; the averaged stack.

    A step draws a batch for each network. The loss is the sum over networks, so each has the gradient that it would
    have alone.
    """
    average, weights = copy.deepcopy(stack), inside * pool.copies  # (E, N)
    count = len(inside)

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = rows_of(weights, how.batch, generator).flatten()
        x0 = pool.images[rows]
        y = nets.dropped(pool.labels[rows], pool.classes, DROPPED, generator)
        sigma = noise.as_level(noise.lognormal(len(x0), *LEVELS, generator), x0)
        both = pair(partial(stack, y=y), x0, sigma, noise_from(generator))
        weight = _weight(cast(nets.Stack, stack), sigma)
        return losses.denoising(*both, weight).unflatten(0, (count, -1)).mean(1).sum()

    options = {"lr": how.lr, "clip": None, "ema": average, "decay": 0.995, "seed": seed, "title": "generators"}
    train.train(stack, loss, how.steps, checkpoint=checkpoint, **options)
    return average


def rows_of(weights: Shaped[Tensor, "e n"], count: int, generator: torch.Generator) -> Int[Tensor, "e count"]:
    """`count` positions for each of E networks, drawn in proportion to its weights (E, N), (E, count)."""
    drawn = torch.multinomial(weights.cpu(), count, replacement=True, generator=generator)
    return to_device(drawn, weights.device)


def conditioned(stack: nn.Module, y: Int[Tensor, " b"], guidance: float = 1.0) -> Denoiser:
    """The denoisers of a stack, told the labels y (B,) of all their rows (B, *S), with classifier-free guidance.

    A weight of 1 is the conditional model.
    """
    told = partial(stack, y=y)
    return told if guidance == 1 else classifier_free(stack, told, guidance)


def _weight(stack: nets.Stack, sigma: Tensor) -> Tensor:
    """`Preconditioned.weight` of networks that share one spread: (E B,)."""
    spread = stack.buffers_of["sigma_data"][0] ** 2
    return (sigma**2 + spread) / spread
