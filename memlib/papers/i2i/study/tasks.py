"""Seven tasks with one model (I6), on a grid of tokens fine enough for holes of three sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from memlib.papers.i2i import masks
from memlib.papers.i2i.evaluation import Judge
from memlib.papers.i2i.masks import hide
from memlib.papers.i2i.study.comparison import RELEASED, Pair, alone, judges_of
from memlib.papers.i2i.study.judging import Judges, best_filling, completed, cosine, judge_of
from memlib.papers.i2i.study.models import Plan, any_of, original, plan_for, unlearned
from memlib.papers.i2i.study.settings import TASKS_SEED, Settings
from memlib.papers.i2i.study.world import World, worlds
from memlib.run import Run

RATIOS = (0.25, 0.5, 0.75)  # fractions of the patches to hide, as nearly as the grid allows
LONGER = 3  # times the steps of the main model, in training and in unlearning alike: there are seven tasks to learn
SHOWN = 3  # images of a group in the gallery of the first repetition

Job = tuple[masks.Task, float]  # a task, and the fraction of the pixels that it really hides


@dataclass(frozen=True)
class Tasks:
    """I6: one model for seven tasks. By (task, fraction hidden): loss of cosine (S, 2), and cosine of the original on
    forget images above the best filling, (S,).

    gallery: task -> truth, T(x), completions by the original and by the unlearned model, (4, 2 * SHOWN, C, H, W) uint8,
    with half of the patches hidden; retain images, then forget images.
    """

    losses: dict[Job, Tensor]
    above: dict[Job, Tensor]
    gallery: dict[str, Tensor]

    def half(self) -> dict[str, Job]:
        """The hole of each task that hides half of the image, as nearly as the grid allows."""
        return {
            task: min((job for job in self.losses if job[0] == task), key=lambda job: abs(job[1] - 0.5))
            for task, _ in self.losses
        }


def on_finer_grid(settings: Settings) -> Settings:
    """The settings with the tokens of the models of several tasks; a patch that was given is that of a checkpoint."""
    return replace(settings, patch=settings.patch or settings.task_patch)


def task_worlds(settings: Settings, run: Run) -> list[World]:
    """The images of every repetition, split anew for the models of several tasks."""
    return worlds(settings, run, TASKS_SEED)


def plan_of_tasks(settings: Settings, world: World) -> Plan:
    """The plan of the first family, with the rate at which the model of all tasks unlearns."""
    plan = plan_for(settings, settings.families[0], world)
    return replace(plan, unlearn_lr=settings.task_lr or plan.unlearn_lr)


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


def tasks(settings: Settings, run: Run, weight: float) -> Tasks:
    """I6, of the first family, unlearned by the paper's method as released at this weight."""
    settings = on_finer_grid(settings)
    every = task_worlds(settings, run)
    seed = every[0].seed
    plans = [plan_of_tasks(settings, world) for world in every]
    calls = [
        (alone(run), plan, world, judges_of(settings), weight, seed) for plan, world in zip(plans, every, strict=True)
    ]
    measured = run.each("tasks", measure_tasks, calls)
    cosines = torch.stack([cosine for cosine, _ in measured])  # (S, jobs, 3, 2)
    jobs = jobs_of(plans[0], seed)
    return Tasks(
        {job: cosines[:, i, 0] - cosines[:, i, 1] for i, job in enumerate(jobs)},
        {job: cosines[:, i, 0, 1] - cosines[:, i, 2, 1] for i, job in enumerate(jobs)},
        measured[0][1],
    )


def measure_tasks(
    run: Run, plan: Plan, world: World, judges: Judges, weight: float, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cosines (J, 3, 2) of J holes by original, unlearned model and best filling; the gallery, by task."""
    jobs = jobs_of(plan, seed)
    pair = pair_of(run, plan, world, weight, seed)
    judge = judge_of(run, world, judges, training_holes(plan, world, seed))
    rows = [three(world, judge, pair, hole_for(world, plan, task, ratio, seed)) for (task, _), ratio in jobs.items()]
    gallery = {task: _pictures(world, pair, hole(plan, task, 0.5, seed, n=2 * SHOWN)) for task in masks.TASKS}
    return torch.stack(rows), gallery


def pair_of(run: Run, plan: Plan, world: World, weight: float, seed: int) -> Pair:
    """The original that learns all tasks, and what the paper's method makes of it."""
    jobs = jobs_of(plan, seed)
    draw = partial(any_of, tuple(partial(hole, plan, task, ratio, seed) for (task, _), ratio in jobs.items()))
    first = original(run, plan, world, draw, steps=LONGER * plan.train_steps)
    longer = replace(plan, unlearn_steps=LONGER * plan.unlearn_steps)
    return Pair(first, unlearned(run, longer, world, first, draw, RELEASED, weight))


def training_holes(plan: Plan, world: World, seed: int) -> list[Tensor]:
    """The masks of all tasks, (1, 1, H, W) or (N, 1, H, W) for the N training images, from which a judge learns."""
    count = len(world.places["train"])
    return [hole(plan, task, ratio, seed, n=count) for (task, _), ratio in jobs_of(plan, seed).items()]


Holes = dict[str, Tensor]  # the masks (1 or N, 1, H, W) of the N test images of each group


def hole_for(world: World, plan: Plan, task: masks.Task, ratio: float, seed: int) -> Holes:
    """The masks (1 or N, 1, H, W) of a task for the N test images of each group."""
    return {group: hole(plan, task, ratio, seed, n=len(world.of(group))) for group in "RF"}


def three(world: World, judge: Judge, pair: Sequence[nn.Module], holes: Holes) -> Tensor:
    """Mean cosines (3, 2) by the original, by the unlearned model, and of the best filling."""
    columns = []
    for group, mask in holes.items():
        truth = world.of(group)
        made = [cosine(completed(model, truth, mask), truth, judge, mask) for model in pair]
        columns.append([*made, best_filling(world, judge, mask, group)])
    return torch.tensor(columns).T


def _pictures(world: World, pair: Sequence[nn.Module], mask: Tensor) -> Tensor:
    """A task's part of the gallery, (4, 2 * SHOWN, C, H, W) uint8."""
    truth = torch.cat([world.of(group)[:SHOWN] for group in "RF"])
    rows = [truth, hide(truth, mask), *(completed(model, truth, mask) for model in pair)]
    return torch.stack([((world.pixels(row) + 1) * 127.5).round().to(torch.uint8).cpu() for row in rows])
