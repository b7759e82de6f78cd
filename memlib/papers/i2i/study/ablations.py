"""One thing changed at a time, in the first family: the size of the hole, the weight, the noise and the retain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from memlib.papers.i2i import targets
from memlib.papers.i2i.study.comparison import (
    PAPER_WEIGHT,
    PRINTED,
    RELEASED,
    Family,
    alone,
    judges_of,
    main_hole,
    main_judge,
    weights_tried,
)
from memlib.papers.i2i.study.judging import Judges, best_filling, scored
from memlib.papers.i2i.study.models import NOISES, Hole, Plan, any_of, centre, fixed, original, plan_for, unlearned
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.world import World
from memlib.run import Run

PER_CLASS = (1, 20)  # retain images a class, of those of figure D.6
LARGEST = 4096  # pixels beyond which the exact covariance is not formed
SWEEP = (0.01, 0.1, PAPER_WEIGHT, 0.5, 1.0)  # weights of table 3, without 0.05 and 0.2


@dataclass(frozen=True)
class Crops:
    """I2: one model for all sizes of hole.

    losses: k -> method -> loss of cosine (S, 2) with the k x k patches in the centre hidden; the paper's method at
    every hole, two baselines at the paper's smaller one. above: k -> (S,), cosine of the original on forget images
    above the best filling. order: all k, the main one first, the paper's smaller one second.
    """

    losses: dict[int, dict[str, Tensor]]
    above: dict[int, Tensor]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Arms:
    """Losses of cosine (S, 2) by name of the arm: a weight (I3), a source of retain data (I4)."""

    losses: dict[str, Tensor]


@dataclass(frozen=True)
class Noise:
    """I5 and I10: losses of cosine (S, 2) by kind of noise, and the covariance of every repetition's forget images.

    off_diagonal (S,): fraction of its squared entries off the diagonal. by_chance (S,): the same with every pixel
    shuffled over the images, and nearly_zero (S,): fraction of the entries off the diagonal within 0.1 of 0; None for
    large images.
    """

    losses: dict[str, Tensor]
    off_diagonal: Tensor
    by_chance: Tensor | None
    nearly_zero: Tensor | None


# Crops.


def crops_hole(plan: Plan, crops: Sequence[int]) -> Hole:
    """Draws one of the centres."""
    return partial(any_of, tuple(partial(fixed, centre(plan, k)) for k in crops))


def crops(settings: Settings, run: Run, worlds: Sequence[World]) -> Crops:
    """I2, of the first family: the paper's method as released and, at the smaller hole, two baselines."""
    name, order = settings.families[0], tuple(settings.crops)
    tried = weights_tried(replace(settings, factors=()))
    weights = {name: tried[name][0] for name in (RELEASED, "Max Loss", "Retain Label")}
    jobs = [(alone(run), plan_for(settings, name, world), world, judges_of(settings), weights) for world in worlds]
    cosines, floors = (torch.stack(part) for part in zip(*run.each("crops", measure_crops, jobs), strict=True))
    losses = {k: {} for k in order}
    for i, k in enumerate(order):
        for j, method in enumerate(weights):
            if method == RELEASED or k == order[1]:
                losses[k][method] = cosines[:, i, 0] - cosines[:, i, 1 + j]
    return Crops(losses, {k: cosines[:, i, 0, 1] - floors[:, i, 1] for i, k in enumerate(order)}, order)


def measure_crops(
    run: Run, plan: Plan, world: World, judges: Judges, weights: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """Mean cosines by crop, retain and forget: of the original and each method, (C, 1 + M, 2), and of the best filling,
    (C, 2)."""
    judge, hole = main_judge(run, plan, world, judges), crops_hole(plan, judges.crops)
    first = original(run, plan, world, hole)
    models = [first, *(unlearned(run, plan, world, first, hole, *arm) for arm in weights.items())]
    cosines, floors = [], []
    for k in judges.crops:
        mask = centre(plan, k)
        cosines.append(torch.stack([scored(model, world, judge, mask).cosine for model in models]))
        floors.append(torch.tensor([best_filling(world, judge, mask, group) for group in "RF"]))
    return torch.stack(cosines), torch.stack(floors)


# Arms of the main task.


def measure_arm(
    run: Run, plan: Plan, world: World, judges: Judges, method: str, weight: float, noise: str, retain: Tensor | None
) -> Tensor:
    """Loss of cosine (2,) by the paper's method with another reading, weight, noise or set of retain images."""
    judge, hole = main_judge(run, plan, world, judges), main_hole(plan, judges)
    first = original(run, plan, world, hole)
    last = unlearned(run, plan, world, first, hole, method, weight, noise, retain)
    mask = centre(plan, judges.crops[0])
    return scored(first, world, judge, mask).cosine - scored(last, world, judge, mask).cosine


def _arms(
    settings: Settings,
    run: Run,
    worlds: Sequence[World],
    title: str,
    arms: dict[str, tuple[str, float, str, str]],
) -> dict[str, Tensor]:
    """Losses (S, 2) of arms: name -> (method, weight, noise, retain data)."""
    jobs = [
        (alone(run), plan_for(settings, settings.families[0], world), world, judges_of(settings))
        + (method, weight, noise, _retain(world, source))
        for method, weight, noise, source in arms.values()
        for world in worlds
    ]
    found = run.each(title, measure_arm, jobs)
    return {name: torch.stack(found[i * len(worlds) : (i + 1) * len(worlds)]) for i, name in enumerate(arms)}


def _retain(world: World, source: str) -> Tensor | None:
    """The retain images of a source: all, the proxies, or a few a class."""
    if source == "all":
        return None
    return world.of("P", "train") if source == "proxy" else world.few("R", int(source.split()[0]))


def alpha(settings: Settings, run: Run, worlds: Sequence[World]) -> Arms:
    """I3: the weights of the paper's table 3, as released, and some of them and the one used here as printed."""
    printed = sorted({PAPER_WEIGHT, 1.0, *weights_tried(settings)[PRINTED]})
    names = [(RELEASED, weight) for weight in SWEEP] + [(PRINTED, weight) for weight in printed]
    arms = {f"{method} {weight:g}": (method, weight, "N(0, I)", "all") for method, weight in names}
    return Arms(_arms(settings, run, worlds, "weight", arms))


def retain_data(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Arms:
    """I4: proxies, or a few retain images a class, in place of the retain set."""
    names = ("all", "proxy", *(f"{k} a class" for k in PER_CLASS))
    arms = {name: (RELEASED, family.best[RELEASED], "N(0, I)", name) for name in names}
    return Arms(_arms(settings, run, worlds, "retain data", arms))


def noise(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Noise:
    """I5 and I10: other kinds of noise, and how far from diagonal the covariance of the images is."""
    every = [world.of("F", "train") for world in worlds]
    small = every[0][0].numel() <= LARGEST
    kinds = [kind for kind in NOISES if small or kind != "exact covariance"]
    arms = {kind: (RELEASED, family.best[RELEASED], kind, "all") for kind in kinds}
    shuffled = [
        targets.off_diagonal_by_chance(images, torch.Generator().manual_seed(world.seed))
        for images, world in zip(every if small else [], worlds, strict=False)
    ]
    return Noise(
        _arms(settings, run, worlds, "noise", arms),
        torch.tensor([targets.off_diagonal(images) for images in every]),
        torch.tensor(shuffled) if small else None,
        torch.tensor([targets.nearly_zero(images) for images in every]) if small else None,
    )
