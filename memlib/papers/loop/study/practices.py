"""What a training can do to leave less behind: one change at a time, each against the usual training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memlib.papers.loop.study import rounds
from memlib.papers.loop.study.measures import Attack
from memlib.papers.loop.study.results import Curve, Practices
from memlib.papers.loop.study.settings import Practice
from memlib.papers.loop.study.world import World
from memlib.papers.loop.unlearning import Recipe
from memlib.random import keyed
from memlib.run import Run

LONGER = 0.999  # decay of the longer running average
GAMMA = 0.05  # weight of the matching term, section E of Real-Fake's appendix
_HALF = 9000  # key of the coins that leave half of the members out


def practices(
    names: Sequence[Practice],
    world: World,
    gone: Tensor,
    usual: tuple[rounds.Weights, Mapping[str, Tensor]],
    how: Recipe,
    times: int,
    width: int,
    looks: tuple[int, ...],
    attack: Attack,
    run: Run,
) -> Practices:
    """Curves of the usual training, and of each change to it.

    *each image once*: what is repeated `times` is not. *half of the images*: a coin leaves out members that are seen
    once; members left out do not count as members. *last weights*, *longer average*: the running average has decay 0 or
    .999. *matching*: Real-Fake's term is added to the loss. *own samples*: a second model is trained on samples of the
    first alone, or on those that copy no member.

    Arguments:
        gone: (T, N), members that the usual training repeats.
        usual: weights and curve of the usual training, as `rounds.trained` returns them.
        how: its recipe.
    """
    inside = world.inside
    seen = inside.long() + (times - 1) * gone.long()
    few = inside & (gone | _coins(inside, run.seed))
    fewer = replace(world, inside=few)
    changes: dict[str, tuple[World, Recipe, Tensor]] = {
        "each image once": (world, how, inside.long()),
        "half of the images": (fewer, how, seen * few),
        "last weights": (world, replace(how, decay=0.0), seen),
        "longer average": (world, replace(how, decay=LONGER), seen),
        "matching": (world, replace(how, matching=GAMMA), seen),
    }
    anew = [name for name in names if name in changes]
    calls = [
        (place, width, recipe, kept, looks, attack, run.seed) for place, recipe, kept in map(changes.__getitem__, anew)
    ]
    found = {name: one for name, (_, one) in zip(anew, run.each("trained", rounds.trained, calls), strict=True)}
    again = [name for name in names if name not in changes]
    calls = [(world, width, usual[0], how, looks, attack, "no copies" in name, run.seed) for name in again]
    found |= dict(zip(again, run.each("distilled", rounds.distilled, calls), strict=True))
    return Practices(looks, {"usual": Curve(**usual[1])} | {name: Curve(**found[name]) for name in names})


def _coins(inside: Tensor, seed: int) -> Tensor:
    """A fair coin for each image, the same for both models of a pair, (T, N)."""
    pairs, images = len(inside) // 2, inside.shape[1]
    drawn = torch.stack([torch.rand(images, generator=keyed(seed, _HALF + t)) for t in range(pairs)])
    return (drawn < 0.5).repeat_interleave(2, 0).to(inside.device)
