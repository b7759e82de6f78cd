"""One thing changed at a time, in the first family: the size of the hole, the weight, the noise and the retain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from memlib.papers.i2i import targets
from memlib.papers.i2i.study.comparison import (
    LI2024,
    PAPER_WEIGHT,
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

PER_CLASS = (1, 5, 10, 20, 25, 50)  # retain images a class, as in figure D.6
LARGEST = 4096  # pixels beyond which the exact covariance is not formed
SWEEP = (0.01, 0.05, 0.1, 0.2, PAPER_WEIGHT, 0.5, 1.0)  # weights of table 3


@dataclass(frozen=True)
class Crops:
    """I2: one model for all sizes of hole.

    losses: k -> loss of cosine (S, 2) with the k x k patches in the centre hidden. above: k -> (S,), cosine of the
    original on forget images above the best filling. order: all k, the main one first, the paper's smaller one second.
    """

    losses: dict[int, Tensor]
    above: dict[int, Tensor]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Arms:
    """Losses of cosine (S, 2) by name of the arm: a weight (I3), a source of retain data (I4)."""

    losses: dict[str, Tensor]


@dataclass(frozen=True)
class Noise:
    """I5 and I10: losses of cosine (S, 2) by kind of noise, and the covariance of the first repetition's forget images.

    off_diagonal: fraction of its squared entries off the diagonal. by_chance: the same with every pixel shuffled over
    the images, and nearly_zero: fraction of the entries off the diagonal within 0.1 of 0; None for large images.
    """

    losses: dict[str, Tensor]
    off_diagonal: float
    by_chance: float | None
    nearly_zero: float | None


# Crops.


def crops_hole(plan: Plan, crops: Sequence[int]) -> Hole:
    """Draws one of the centres."""
    return partial(any_of, tuple(partial(fixed, centre(plan, k)) for k in crops))


def crops(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Crops:
    """I2, of the first family, at the weight tuned in the main comparison."""
    name, weight = settings.families[0], family.best[LI2024]
    jobs = [(alone(run), plan_for(settings, name, world), world, judges_of(settings), weight) for world in worlds]
    found = torch.stack(run.each("crops", measure_crops, jobs))  # (S, crops, 3, 2)
    order = tuple(settings.crops)
    losses = {k: found[:, i, 0] - found[:, i, 1] for i, k in enumerate(order)}
    return Crops(losses, {k: found[:, i, 0, 1] - found[:, i, 2, 1] for i, k in enumerate(order)}, order)


def measure_crops(run: Run, plan: Plan, world: World, judges: Judges, weight: float) -> Tensor:
    """Mean cosines (C, 3, 2) by crop: of the original, the unlearned model and the best filling; retain and forget."""
    judge, pair = main_judge(run, plan, world, judges), crops_pair(run, plan, world, judges.crops, weight)
    rows = []
    for k in judges.crops:
        mask = centre(plan, k)
        floor = torch.tensor([best_filling(world, judge, mask, group) for group in "RF"])
        rows.append(torch.stack([*(scored(model, world, judge, mask).cosine for model in pair), floor]))
    return torch.stack(rows)


def crops_pair(
    run: Run, plan: Plan, world: World, sizes: Sequence[int], weight: float, steps: int | None = None
) -> tuple[nn.Module, nn.Module]:
    """A model that completes all centres, trained for `steps`, and what the paper's method makes of it."""
    hole = crops_hole(plan, sizes)
    first = original(run, plan, world, hole, steps)
    return first, unlearned(run, plan, world, first, hole, LI2024, weight)


# Arms of the main task.


def measure_arm(
    run: Run, plan: Plan, world: World, judges: Judges, weight: float, noise: str, retain: Tensor | None
) -> Tensor:
    """Loss of cosine (2,) by the paper's method with another weight, noise or set of retain images (N, C, H, W)."""
    judge, hole = main_judge(run, plan, world, judges), main_hole(plan, judges)
    first = original(run, plan, world, hole)
    last = unlearned(run, plan, world, first, hole, LI2024, weight, noise, retain)
    mask = centre(plan, judges.crops[0])
    return scored(first, world, judge, mask).cosine - scored(last, world, judge, mask).cosine


def _arms(
    settings: Settings,
    run: Run,
    worlds: Sequence[World],
    title: str,
    arms: dict[str, tuple[float, str, str]],
) -> dict[str, Tensor]:
    """Losses (S, 2) of arms: name -> (weight, noise, retain data)."""
    jobs = [
        (alone(run), plan_for(settings, settings.families[0], world), world, judges_of(settings), weight, noise)
        + (_retain(world, source),)
        for weight, noise, source in arms.values()
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
    """I3: the weights of the paper's table 3 and those tried here."""
    weights = sorted({*SWEEP, *weights_tried(settings)[LI2024]})
    arms = {f"{weight:g}": (weight, "N(0, I)", "all") for weight in weights}
    return Arms(_arms(settings, run, worlds, "weight", arms))


def retain_data(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Arms:
    """I4: proxies, or a few retain images a class, in place of the retain set."""
    names = ("all", "proxy", *(f"{k} a class" for k in PER_CLASS))
    arms = {name: (family.best[LI2024], "N(0, I)", name) for name in names}
    return Arms(_arms(settings, run, worlds, "retain data", arms))


def noise(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Noise:
    """I5 and I10: other kinds of noise, and how far from diagonal the covariance of the images is."""
    images = worlds[0].of("F", "train")
    small = images[0].numel() <= LARGEST
    arms = {kind: (family.best[LI2024], kind, "all") for kind in NOISES if small or kind != "exact covariance"}
    return Noise(
        _arms(settings, run, worlds, "noise", arms),
        targets.off_diagonal(images),
        targets.off_diagonal_by_chance(images, torch.Generator().manual_seed(worlds[0].seed)) if small else None,
        targets.nearly_zero(images) if small else None,
    )
