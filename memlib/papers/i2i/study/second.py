"""Can a second completion go on from what an unlearned model has made (I7)? Table E.4 asks it of the VQ-GAN."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from memlib.papers.i2i.evaluation import Judge
from memlib.papers.i2i.study.comparison import RELEASED, Pair, alone, judges_of
from memlib.papers.i2i.study.judging import Judges, another, completed, cosine, judge_of
from memlib.papers.i2i.study.models import Plan, any_of, fixed, original, plan_for, unlearned
from memlib.papers.i2i.study.settings import Family, Settings
from memlib.papers.i2i.study.tasks import (
    hole,
    on_finer_grid,
    pair_of,
    plan_of_tasks,
    task_worlds,
    three,
    training_holes,
)
from memlib.papers.i2i.study.world import World
from memlib.run import Run

CENTRES = ("truth", "original", "unlearned", "another class")  # where the centre of a second completion is from
PAPERS: Family = "vqgan"  # of table E.4
LONGER = 2  # times the training steps of the main model: there are two holes to learn


@dataclass(frozen=True)
class Second:
    """I7, in one family.

    cosine: (S,) of the rim that the original makes of a centre, by group ("R", "F") and `CENTRES`. losses (S, 2), above
    (S,): of the first completion, of the centre: loss of cosine, and how far the original lay above the best filling.
    """

    cosine: dict[tuple[str, str], Tensor]
    losses: Tensor
    above: Tensor


def second(settings: Settings, run: Run, weight: float) -> dict[str, Second]:
    """I7 by family: the first, with the model of all tasks, and the paper's, with a model of the two holes."""
    settings = on_finer_grid(settings)
    every = task_worlds(settings, run)
    first = settings.families[0]
    asked = [(world, plan_of_tasks(settings, world), weight, True) for world in every]
    if PAPERS in settings.families[1:]:
        asked += [(world, plan_of_two(settings, world), settings.second_weight, False) for world in every]
    calls = [
        (alone(run), plan, world, judges_of(settings), alpha, every[0].seed, all_tasks)
        for world, plan, alpha, all_tasks in asked
    ]
    measured = run.each("second", measure_second, calls)
    found = {first: _gathered(measured[: len(every)])}
    return found | ({PAPERS: _gathered(measured[len(every) :])} if len(measured) > len(every) else {})


def plan_of_two(settings: Settings, world: World) -> Plan:
    """The plan of the VQ-GAN of two holes."""
    plan = plan_for(settings, PAPERS, world)
    steps = LONGER * plan.train_steps
    return replace(plan, train_steps=steps, unlearn_steps=settings.second_steps, unlearn_lr=settings.second_lr)


def _gathered(measured: Sequence[tuple[Tensor, Tensor]]) -> Second:
    first, again = (torch.stack(part) for part in zip(*measured, strict=True))  # (S, 3, 2), (S, 2, 4)
    cosines = {(g, name): again[:, i, j] for i, g in enumerate("RF") for j, name in enumerate(CENTRES)}
    return Second(cosines, first[:, 0] - first[:, 1], first[:, 0, 1] - first[:, 2, 1])


def measure_second(
    run: Run, plan: Plan, world: World, judges: Judges, weight: float, seed: int, all_tasks: bool
) -> tuple[Tensor, Tensor]:
    """Mean cosines of the centre, (3, 2), by original, unlearned model and best filling; of second completions (2, 4),
    by group and centre. The two models know all tasks, or the two holes of this test alone."""
    inside, rim = hole(plan, "centre", 0.5, seed), hole(plan, "outpaint", 0.5, seed)
    if all_tasks:
        pair, seen = pair_of(run, plan, world, weight, seed), training_holes(plan, world, seed)
    else:
        pair, seen = _pair_of_two(run, plan, world, weight, inside, rim), [inside, rim]
    judge = judge_of(run, world, judges, seen)
    again = [[_again(world, judge, pair, inside, rim, group, name) for name in CENTRES] for group in "RF"]
    return three(world, judge, pair, dict.fromkeys("RF", inside)), torch.tensor(again)


def _pair_of_two(run: Run, plan: Plan, world: World, weight: float, inside: Tensor, rim: Tensor) -> Pair:
    """The original that learns two holes, and what the paper's method makes of it."""
    draw = partial(any_of, (partial(fixed, inside), partial(fixed, rim)))
    first = original(run, plan, world, draw)
    return Pair(first, unlearned(run, plan, world, first, draw, RELEASED, weight))


def _again(
    world: World, judge: Judge, pair: Sequence[nn.Module], inside: Tensor, rim: Tensor, group: str, centre: str
) -> float:
    """Cosine of the rim that the original makes of a centre that is true, made, or of another class."""
    truth = world.of(group)
    filled = another(world, group) if centre == "another class" else truth
    if centre in ("original", "unlearned"):
        filled = completed(pair[centre == "unlearned"], truth, inside)
    return cosine(completed(pair[0], filled, rim), truth, judge, rim)
