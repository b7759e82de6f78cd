"""Classifiers of the pipelines, trained as one stack on real or on published images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib import nets, train
from memlib.papers.synthesis.generators import rows_of
from memlib.random import noise_from
from memlib.shapes import Float, Int, Shaped


@dataclass(frozen=True)
class Recipe:
    """How each classifier of a stack is trained.

    Arguments:
        width, blocks: of a residual MLP.
        steps, batch, lr: of Adam.
        smoothing: of the labels. Szegedy et al. 2016, sec. 7
        jitter: deviation of Gaussian noise on the images, in units of their spread.
        looks: fractions of the steps after which a copy is kept, the last of them 1.
    """

    width: int = 128
    blocks: int = 1
    steps: int = 500
    batch: int = 64
    lr: float = 2e-3
    smoothing: float = 0.0
    jitter: float = 0.0
    looks: tuple[float, ...] = (1.0,)


def fit(
    images: Float[Tensor, "e m *s"],
    labels: Int[Tensor, "e m"],
    weights: Shaped[Tensor, "e m"],
    classes: int,
    spread: float,
    recipe: Recipe,
    seed: int,
) -> list[nets.Stack]:
    """Train classifier e on images (M, *S) of row e, drawn by their weights; the stacks after each look.

    The learning rate is constant, so that a look is what training stopped there would have given.
    """
    count, shape = len(images), images.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        each = [
            nets.Classifier(nets.LabelMLP(classes, shape, recipe.width, recipe.blocks, time=False), spread)
            for _ in range(count)
        ]
    stack = nets.Stack(each).to(images)
    offset = (torch.arange(count, device=images.device) * images.shape[1])[:, None]
    flat, named = images.flatten(0, 1), labels.flatten()

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = (rows_of(weights, recipe.batch, generator) + offset).flatten()
        x = flat[rows]
        if recipe.jitter:
            x = x + recipe.jitter * spread * noise_from(generator)(x)
        apart = F.cross_entropy(stack(x, 0.0), named[rows], reduction="none", label_smoothing=recipe.smoothing)
        return apart.unflatten(0, (count, -1)).mean(1).sum()

    marks = {max(1, round(look * recipe.steps)) for look in recipe.looks}
    options = {"lr": recipe.lr, "schedule": "constant", "clip": None, "seed": seed, "title": "classifiers"}
    kept = []
    for step in train.fit(stack, loss, recipe.steps, **options):
        if step.index + 1 in marks:
            kept.append(nets.Stack(stack.unstack()).eval().requires_grad_(False))
    return kept


@torch.no_grad()
def logits(stack: nets.Stack, images: Float[Tensor, " n *s"]) -> Float[Tensor, "e n k"]:
    """What every classifier of a stack says of the same images (N, *S), (E, N, K)."""
    every = images.expand(stack.count, *images.shape).flatten(0, 1)
    return stack(every, 0.0).unflatten(0, (stack.count, -1))


def accuracy(stack: nets.Stack, images: Float[Tensor, " n *s"], labels: Int[Tensor, " n"]) -> Float[Tensor, " e"]:
    """The fraction of images (N, *S) that each classifier names rightly, (E,), float64."""
    return (logits(stack, images).argmax(-1) == labels).double().mean(1)
