"""R6: latent prior, visual guidance and matching, each with and without, in all eight combinations, paired by network.

Visual guidance and matching change the training of a generator, the latent prior changes where sampling starts. All
eight networks of an arm start from the same weights as those of any other arm, and see the same batches and noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from memlib import nets
from memlib.papers.synthesis import classifiers, matching, visual_guidance
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.generators import Network, Training
from memlib.papers.synthesis.matching import Term
from memlib.papers.synthesis.pool import Pool
from memlib.papers.synthesis.study.fine_tuning import without_canaries
from memlib.papers.synthesis.study.world import World, descriptor
from memlib.papers.synthesis.synthetic import Published, publish
from memlib.run import Run

FACTORS = ("latent prior", "visual guidance", "matching")
GAMMA = 0.05  # of the matching term, section E of the paper's appendix


@dataclass(frozen=True)
class Ablation:
    """Test images named rightly, (E, M) bools, by arm such as "110"; all three by guidance; real ones."""

    arms: dict[str, Tensor]
    by_guidance: dict[float, Tensor]
    real: Tensor


def measured(
    world: World, network: Network, how: Training, guidances: Sequence[float], recipe: Recipe, strength: float,
    steps: int, seed: int, run: Run,
) -> Ablation:  # fmt: skip
    """Train the four kinds of generators, publish eight kinds of sets at the first guidance, and classify."""
    pool = without_canaries(world, seed)
    members = pool.inside[::2]
    looks = descriptor(world)(pool.images)
    looks = looks / looks.std()
    arms, by_guidance = {}, {}
    for guided, matched in product((False, True), repeat=2):
        stack = _trained(pool, members, network, how, looks if guided else 0 * looks, GAMMA if matched else 0.0, seed)
        for prior in (False, True):
            start = strength if prior else 1.0
            for scale in guidances if prior and guided and matched else guidances[:1]:
                made = published(stack, pool, members, start, scale, steps, seed)
                right = _right(world, made.images, made.labels, network.spread, recipe, seed)
                by_guidance |= {scale: right} if prior and guided and matched else {}
                if scale == guidances[0]:
                    arms["".join(str(int(one)) for one in (prior, guided, matched))] = right
    rows = members.nonzero()[:, 1].reshape(len(members), -1)
    real = _right(world, pool.images[rows], pool.labels[rows], network.spread, recipe, seed)
    return Ablation(arms, by_guidance, real)


def published(
    stack: nets.Stack, pool: Pool, members: Tensor, strength: float, guidance: float, steps: int, seed: int
) -> Published:
    """Sets (E, M, *S) of generators whose condition is an image: each new image is told the member it stands for."""
    named = Pool(pool.images, _names(pool), pool.copies, pool.kind, pool.inside, pool.classes)
    made = publish(stack, named, members, strength=strength, guidance=guidance, steps=steps, seed=seed)
    return made._replace(labels=pool.labels[made.members])


def _trained(
    pool: Pool, members: Tensor, network: Network, how: Training, looks: Tensor, gamma: float, seed: int
) -> nets.Stack:
    stack = visual_guidance.build(network, len(members), pool.labels, looks, seed).to(pool.images)
    names = _names(pool)
    return matching.fine_tune(stack, pool, members, how, Term("printed", gamma), seed, names, len(names))


def _names(pool: Pool) -> Tensor:
    """The position of each image, (N,)."""
    return torch.arange(len(pool.images), device=pool.labels.device)


def _right(world: World, images: Tensor, labels: Tensor, spread: float, recipe: Recipe, seed: int) -> Tensor:
    weight = torch.ones(labels.shape, device=labels.device)
    (judges,) = classifiers.fit(images, labels, weight, world.pool.classes, spread, recipe, seed)
    return (classifiers.logits(judges, world.test).argmax(-1) == world.test_labels).cpu()


def effect(found: Ablation, factor: int) -> Tensor:
    """What a factor adds in the mean of the four combinations of the others, by network and test image, (E, M)."""
    apart = [values.double() * (1 if arm[factor] == "1" else -1) for arm, values in found.arms.items()]
    return torch.stack(apart).sum(0) / 4
