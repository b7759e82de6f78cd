"""Samples that SIDE's guidance steers: by labels of the model's own samples, and by labels of public images.

The first attacker has the model alone (chapter 2, own labels). The second also knows what the forgotten images show,
and has labelled images of the same kind that no model saw.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from memlib import nets, train
from memlib.denoiser import guided
from memlib.errors import Refused
from memlib.features import Embed
from memlib.noise import add_noise, as_level, lognormal
from memlib.papers.loop.study.measures import Attack, drawn
from memlib.papers.loop.study.world import World
from memlib.papers.side import cluster, log_p, tdkd
from memlib.papers.synthesis.generators import rows_of
from memlib.random import noise_from
from memlib.shapes import Bool, Float, Int, Shaped

LEVELS = (0.0, 1.4)  # mean and deviation of ln sigma in distillation, as in chapter 2
_CLEAN = 0.05  # sigma at which a classifier reads the end of a sample
_OWN, _PUBLIC = 60, 61  # added to the seed in millions: samples that are labelled, and those that are steered


@dataclass(frozen=True)
class Guide:
    """How a classifier is made and used.

    Attributes:
        clusters: of a model's own samples; each is a label.
        width: units of a classifier, a residual MLP of one block.
        steps: optimiser steps of its distillation, Adam at `lr`.
        lr: falls to 0 along a cosine.
        batch: images of each classifier a step.
        weight: of the gradient; lambda of SIDE eq. 10.
    """

    clusters: int
    width: int
    steps: int
    lr: float
    batch: int
    weight: float


def own_guided(
    stack: nn.Module, world: World, embed: Embed, ends: Float[Tensor, "t b *s"], attack: Attack, how: Guide, seed: int
) -> Float[Tensor, "t b *s"]:
    """Samples of each model, (T, S, *shape), steered by clusters of other samples of its own.

    Each sample is guided to the label that the classifier gives to its own unguided end, (T, S, *shape).
    """
    samples = drawn(stack, world, attack, seed + _OWN)
    labels = torch.stack([_clusters(embed(one), how.clusters, seed) for one in samples])  # (T, S), -1: in no cluster
    targets = one_hot(labels.clamp_min(0), how.clusters).to(samples)
    classifier = _distilled(samples, targets, labels >= 0, how, float(world.reference.std()), seed, "own labels")
    flat = ends.flatten(0, 1)
    with torch.no_grad():
        wanted = classifier(flat, flat.new_tensor(_CLEAN)).argmax(1)
    return _steered(stack, world, classifier, wanted, attack, how, seed)


def aimed(
    stack: nn.Module, world: World, gone: Bool[Tensor, "t n"], attack: Attack, how: Guide, seed: int
) -> Float[Tensor, "t b *s"]:
    """Samples of each model, (T, S, *shape), steered towards the labels of what it forgot, (T, N).

    Sample i aims at the label of the i-th forgotten image, in turns. The classifier is distilled on public images.
    """
    images, names = world.public, world.public_labels
    targets = one_hot(names, max(int(world.labels.max()), int(names.max())) + 1).to(images)
    alone = torch.ones(1, len(images), dtype=torch.bool, device=images.device)
    classifier = _distilled(
        images[None], targets[None], alone, how, float(world.reference.std()), seed, "public labels"
    )
    turns = torch.arange(attack.samples, device=images.device)
    wanted = torch.cat([world.labels[row][turns % int(row.sum())] for row in gone])
    return _steered(stack, world, classifier, wanted, attack, how, seed)


def unguided(stack: nn.Module, world: World, attack: Attack, seed: int) -> Float[Tensor, "t b *s"]:
    """Samples of each model from the same starts without guidance, (T, S, *shape)."""
    return drawn(stack, world, attack, seed + _PUBLIC)


def _clusters(features: Float[Tensor, "n d"], count: int, seed: int) -> Int[Tensor, " n"]:
    """The cluster of each sample, (N,); -1 in one that is no tighter than chance. One cluster where no two differ."""
    try:
        return cluster(features, min(count, len(features)), seed=seed).labels
    except Refused:  # a broken model makes one image, or noise: then there is nothing to aim at
        return torch.zeros(len(features), dtype=torch.long, device=features.device)


def _distilled(
    images: Float[Tensor, "e n *s"],
    targets: Shaped[Tensor, "e n k"],
    used: Bool[Tensor, "e n"],
    how: Guide,
    spread: float,
    seed: int,
    title: str,
) -> nets.Stack:
    """E classifiers of noisy images, distilled side by side (SIDE eq. 11), each on its own images in `used` (E, N)."""
    count, shape, classes = len(images), tuple(images.shape[2:]), targets.shape[2]
    torch.manual_seed(seed)
    networks = [nets.Classifier(nets.LabelMLP(classes, shape, how.width, 1), spread) for _ in range(count)]
    stack = nets.Stack(networks).to(images)
    each = torch.arange(count, device=images.device)[:, None]

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = rows_of(used.float(), how.batch, generator)
        x0, wanted = images[each, rows].flatten(0, 1), targets[each, rows].flatten(0, 1)
        sigma = as_level(lognormal(len(x0), *LEVELS, generator), x0)
        return tdkd(stack(add_noise(x0, sigma, noise_from(generator)), sigma), wanted).sum() / how.batch

    train.train(stack, loss, how.steps, lr=how.lr, clip=None, seed=seed, title=title)
    return stack.eval().requires_grad_(False)


def _steered(
    stack: nn.Module,
    world: World,
    classifier: nets.Stack,
    wanted: Int[Tensor, " b"],
    attack: Attack,
    how: Guide,
    seed: int,
) -> Tensor:
    """Samples (T, S, *shape) from the starts of `unguided`, guided to the labels `wanted` (T S,)."""
    return drawn(guided(stack, log_p(classifier, wanted), how.weight), world, attack, seed + _PUBLIC)
