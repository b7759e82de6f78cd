"""Completions to look at, of the first repetition: read from the cache, or made."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from memlib.papers.i2i.masks import hide
from memlib.papers.i2i.study.comparison import (
    PAPER_WEIGHT,
    PRINTED,
    RELEASED,
    Family,
    judges_of,
    main_hole,
    main_pair,
)
from memlib.papers.i2i.study.judging import completed
from memlib.papers.i2i.study.models import OURS, centre, original, plan_for, unlearned
from memlib.papers.i2i.study.settings import Family as FamilyName
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.tasks import SHOWN, Tasks
from memlib.papers.i2i.study.world import World, worlds
from memlib.run import Run

Sheet = dict[str, Tensor]
"""Rows of images (2 * EACH, C, H, W) in [-1, 1] by name: retain images on the left, forget images on the right."""

EACH = 7  # images of a group


def shown(world: World) -> Tensor:
    """The test images (2 * EACH, C, H, W) of a sheet, standardised: retain, then forget."""
    return torch.cat([world.of(group)[:EACH] for group in "RF"])


def sheet(world: World, mask: Tensor, completions: Sequence[tuple[str, Tensor]]) -> Sheet:
    """Truth, T(x) and completions (2 * EACH, C, H, W) by name, in [-1, 1] on the CPU."""
    rows = {"truth": shown(world), "T(x)": hide(shown(world), mask)} | dict(completions)
    return {name: world.pixels(images).cpu() for name, images in rows.items()}


def by_family(settings: Settings, run: Run, world: World, families: dict[str, Family]) -> Sheet:
    """Completions by the original and by the model that the paper's method made, of each family."""
    rows, judges = [], judges_of(settings)
    mask = torch.empty(0)
    for name, family in families.items():
        plan = plan_for(settings, cast(FamilyName, name), world)
        mask = centre(plan, settings.crops[0])
        for title, model in main_pair(run, plan, world, judges, family.best[RELEASED])._asdict().items():
            rows.append((f"{name}, {title}", completed(model, shown(world), mask)))
    return sheet(world, mask, rows)


def by_reading(settings: Settings, run: Run, world: World, family: Family) -> dict[str, Sheet]:
    """Completions by the first family's original and what both readings make of it, as printed also at weight 0.25."""
    plan, judges = plan_for(settings, settings.families[0], world), judges_of(settings)
    mask, hole = centre(plan, settings.crops[0]), main_hole(plan, judges)
    first = original(run, plan, world, hole)
    own = [arm for arm in family.arms if arm[0] in OURS]
    task = Main(world, first, mask)
    arms = {f"{method}, {weight:g}": (method, weight) for method, weight in [*own, (PRINTED, PAPER_WEIGHT)]}
    return {name: task.sheet(unlearned(run, plan, world, first, hole, *arm)) for name, arm in arms.items()}


def gallery(tasks: Tasks) -> Sheet:
    """A row a task, with half of the image hidden: of two retain and two forget images, what is shown, what the
    original makes of it and what the unlearned model makes of it, (12, C, H, W) in [-1, 1]."""
    people = [0, 1, SHOWN, SHOWN + 1]
    return {name: part[1:, people].transpose(0, 1).flatten(0, 1) / 127.5 - 1 for name, part in tasks.gallery.items()}


class Main(NamedTuple):
    """The main task of the first repetition: its images, the frozen original of the first family, and the mask."""

    world: World
    original: nn.Module
    mask: Tensor

    def sheet(self, model: nn.Module) -> Sheet:
        """Truth, T(x), and completions by the original and by another model."""
        pair = {"original": self.original, "unlearned": model}
        made = [(name, completed(one, shown(self.world), self.mask)) for name, one in pair.items()]
        return sheet(self.world, self.mask, made)

    def error(self, model: nn.Module, group: str) -> float:
        """Root mean squared error of a model on the hidden pixels of retain (R) or forget (F) test images."""
        truth = self.world.of(group)
        wrong = (completed(model, truth, self.mask) - truth)[..., self.mask[0, 0]]
        return float(wrong.square().mean().sqrt())


def main(settings: Settings, run: Run) -> Main:
    """The main task of the first repetition; the original is trained here, and the study then finds it."""
    world = worlds(settings, run)[0]
    plan = plan_for(settings, settings.families[0], world)
    hole = main_hole(plan, judges_of(settings))
    return Main(world, original(run, plan, world, hole), centre(plan, settings.crops[0]))
