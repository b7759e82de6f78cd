"""Seven tasks with one model (I6), and whether a second model can go on from what the first has made (I7)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from memlib.papers.i2i import masks
from memlib.papers.i2i.evaluation import Judge
from memlib.papers.i2i.study.comparison import RELEASED, Family, alone, judges_of
from memlib.papers.i2i.study.judging import Judges, another, best_filling, completed, cosine, judge_of
from memlib.papers.i2i.study.models import Plan, any_of, original, plan_for, unlearned
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.world import World
from memlib.run import Run

RATIOS = (0.25, 0.5)  # fractions of the patches to hide, as nearly as the grid allows
LONGER = 3  # times the steps of the main model, in training and in unlearning alike: there are seven tasks to learn
CENTRES = ("truth", "original", "unlearned", "another class")  # where the centre of a second completion is from

Job = tuple[masks.Task, float]  # a task, and the fraction of the pixels that it really hides


@dataclass(frozen=True)
class Tasks:
    """I6: one model for seven tasks. By (task, fraction hidden): loss of cosine (S, 2), and cosine of the original on
    forget images above the best filling, (S,)."""

    losses: dict[Job, Tensor]
    above: dict[Job, Tensor]

    def larger(self) -> dict[str, Job]:
        """The larger of the two holes of each task."""
        return {task: max(job for job in self.losses if job[0] == task) for task, _ in self.losses}


@dataclass(frozen=True)
class Second:
    """I7, with the model of all tasks.

    cosine: (S,) of the rim that the original makes of a centre, by group ("R", "F") and `CENTRES`. losses (S, 2), above
    (S,): of the first completion, of the centre: loss of cosine, and how far the original lay above the best filling.
    """

    cosine: dict[tuple[str, str], Tensor]
    losses: Tensor
    above: Tensor


def hole(
    plan: Plan, task: masks.Task, ratio: float, seed: int, generator: torch.Generator | None = None, n: int = 1
) -> Tensor:
    """The mask of a task, (1, 1, H, W); of random patches n masks, drawn by `generator`, else by `seed`."""
    generator = generator or torch.Generator().manual_seed(seed)
    return masks.mask(task, plan.shape[-1], plan.patch, ratio, n if task == "random" else 1, generator).to(plan.device)


def jobs_of(plan: Plan, seed: int) -> dict[Job, float]:
    """The tasks with the fraction that each really hides -> the ratio asked for; equal masks count once."""
    return {
        (task, round(float(hole(plan, task, ratio, seed).float().mean()), 2)): ratio
        for task in masks.TASKS
        for ratio in RATIOS
    }


def tasks(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> tuple[Tasks, Second]:
    """I6 and I7, of the first family."""
    seed = worlds[0].seed
    calls = [
        (alone(run), plan_for(settings, settings.families[0], world), world, judges_of(settings))
        + (family.best[RELEASED], seed)
        for world in worlds
    ]
    measured = run.each("tasks", measure_tasks, calls)
    cosines, again = (torch.stack(part) for part in zip(*measured, strict=True))  # (S, jobs, 3, 2), (S, 2, 4)
    jobs = jobs_of(calls[0][1], seed)
    found = Tasks(
        {job: cosines[:, i, 0] - cosines[:, i, 1] for i, job in enumerate(jobs)},
        {job: cosines[:, i, 0, 1] - cosines[:, i, 2, 1] for i, job in enumerate(jobs)},
    )
    centre = found.larger()["centre"]
    second = {(g, name): again[:, i, j] for i, g in enumerate("RF") for j, name in enumerate(CENTRES)}
    return found, Second(second, found.losses[centre], found.above[centre])


def measure_tasks(
    run: Run, plan: Plan, world: World, judges: Judges, weight: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mean cosines (jobs, 3, 2) by original, unlearned model and best filling; of second completions (2, centres)."""
    jobs = jobs_of(plan, seed)
    draw = partial(any_of, tuple(partial(hole, plan, task, ratio, seed) for (task, _), ratio in jobs.items()))
    first = original(run, plan, world, draw, steps=LONGER * plan.train_steps)
    longer = replace(plan, unlearn_steps=LONGER * plan.unlearn_steps)
    last = unlearned(run, longer, world, first, draw, RELEASED, weight)
    count = len(world.places["train"])
    seen = [hole(plan, task, ratio, seed, n=count) for (task, _), ratio in jobs.items()]
    judge = judge_of(run, world, judges, seen)
    rows = [_three(world, judge, first, last, plan, task, ratio, seed) for (task, _), ratio in jobs.items()]
    again = [[_second(world, judge, plan, first, last, g, name, seed) for name in CENTRES] for g in "RF"]
    return torch.stack(rows), torch.tensor(again)


def _three(
    world: World, judge: Judge, first: nn.Module, last: nn.Module, plan: Plan, task: masks.Task, ratio: float, seed: int
) -> Tensor:
    """Mean cosines (3, 2) by the original, by the unlearned model, and of the best filling."""
    columns = []
    for group in "RF":
        truth = world.of(group)
        mask = hole(plan, task, ratio, seed, n=len(truth))
        made = [cosine(completed(model, truth, mask), truth, judge, mask) for model in (first, last)]
        columns.append([*made, best_filling(world, judge, mask, group)])
    return torch.tensor(columns).T


def _second(
    world: World, judge: Judge, plan: Plan, first: nn.Module, last: nn.Module, group: str, centre: str, seed: int
) -> float:
    """Cosine of the rim that the original makes of a centre that is true, made, or of another class."""
    truth, inside, rim = world.of(group), hole(plan, "centre", 0.5, seed), hole(plan, "outpaint", 0.5, seed)
    filled = another(world, group) if centre == "another class" else truth
    if centre in ("original", "unlearned"):
        filled = completed(first if centre == "original" else last, truth, inside)
    return cosine(completed(first, filled, rim), truth, judge, rim)
