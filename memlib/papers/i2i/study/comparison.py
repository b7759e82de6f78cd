"""The main comparison: five methods with equal budgets, each with its own weight, in every family and repetition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlib.cache.recent import recent
from memlib.noise import noise_from
from memlib.papers.i2i.diffusion import Inpainter
from memlib.papers.i2i.evaluation import Judge
from memlib.papers.i2i.study.judging import Judges, Scores, best_filling, judge_of, scored, stacked
from memlib.papers.i2i.study.models import (
    METHODS,
    OURS,
    RETAIN_ONLY,
    Hole,
    Plan,
    centre,
    fixed,
    original,
    plan_for,
    unlearned,
)
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.world import World
from memlib.run import Run

RELEASED, PRINTED = "as released", "as printed"  # the two readings of the paper's method
PAPER_WEIGHT = 0.25
CONTROL = "masked code"  # the family that is not the paper's: diffusion with a code of the masked image alone

Arm = tuple[str, float]  # a method and its weight


@dataclass(frozen=True)
class Family:
    """What came out for one family, on test images; S repetitions, retain then forget images in the last axis.

    original, arms: scores (S, 2). floor (S, 2): cosine of the best filling that completes nothing. best: the weight of
    each method. stages (n, 3), in the diffusion family: see `stages`.
    """

    original: Scores
    floor: Tensor
    arms: dict[Arm, Scores]
    best: dict[str, float]
    stages: Tensor | None = None

    def losses(self, method: str, weight: float | None = None) -> Tensor:
        """Loss of cosine (S, 2) by a method, at its best weight unless one is given."""
        return self.original.cosine - self.arms[method, self.best[method] if weight is None else weight].cosine

    def retain_only(self) -> Tensor:
        """Loss of cosine (S, 2) by the retain term alone."""
        return self.losses(*RETAIN_ONLY)

    @property
    def above(self) -> Tensor:
        """How far the original lies above the floor on forget images, (S,): what there is to lose."""
        return self.original.cosine[:, 1] - self.floor[:, 1]

    def able(self, margin: float) -> bool:
        """Whether the original completes forget images so well that there is something to lose."""
        return bool((self.above > 2 * margin).all())


@dataclass(frozen=True)
class Measured:
    """One repetition in one family: scores (2,) of the original and of each arm; losses (2,) on validation images."""

    original: Scores
    floor: Tensor
    arms: dict[Arm, Scores]
    validation: dict[Arm, Tensor]


def judges_of(settings: Settings) -> Judges:
    """The judges that these settings name."""
    return Judges(settings.inception, settings.clip, settings.judge_steps, settings.crops)


def weights_tried(settings: Settings) -> dict[str, tuple[float, ...]]:
    """The weights of each method: equally many multiples of its own, which was found on the explore half."""
    factors = settings.factors or (1.0,)
    pairs = zip(METHODS, settings.weights, strict=True)
    return {name: tuple(factor * one for factor in factors) for name, one in pairs}


def compare(
    settings: Settings, run: Run, worlds: Sequence[World], names: Sequence[str] = tuple(METHODS)
) -> dict[str, Family]:
    """All methods in every family or, for the paper's method as released alone, the first family."""
    every = len(names) == len(METHODS)
    families = settings.families if every else settings.families[:1]
    tried = {family: _tried(settings, family, names) for family in families}
    arms: dict[str, list[Arm]] = {
        family: [(name, weight) for name, weights in tried[family].items() for weight in weights] for family in families
    }
    for found in arms.values() if every else ():
        found.extend([] if RETAIN_ONLY in found else [RETAIN_ONLY])
    jobs = {
        (family, i): (alone(run), plan_for(settings, family, world), world, judges_of(settings), bool(settings.factors))
        for family in families
        for i, world in enumerate(worlds)
    }
    firsts = [("original", measure_original, job) for job in jobs.values()]
    others = [[("arm", measure_arm, (*job, *arm)) for arm in arms[family]] for (family, _), job in jobs.items()]
    run.cascade(firsts, others.__getitem__)  # an arm waits for its own original, and for no other
    found = [
        _measured(first, dict(zip(arms[family], run.together(calls), strict=True)))
        for (family, _), first, calls in zip(jobs, run.together(firsts), others, strict=True)
    ]
    gathered = {}
    for i, family in enumerate(families):
        gathered[family] = _gathered(found[i * len(worlds) : (i + 1) * len(worlds)], tried[family], arms[family])
    if "diffusion" in gathered:
        gathered["diffusion"] = replace(gathered["diffusion"], stages=stages(settings, run, worlds, gathered))
    return gathered


def alone(run: Run) -> Run:
    """The run as a worker sees it: the same cache, no processes of its own."""
    return Run(run.name, seed=run.seed, device=run.device)


def _tried(settings: Settings, family: str, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The weights of the methods of a family: all in the first, both readings of the paper's method in the others, and
    the released one alone in the positive control."""
    tried = weights_tried(settings)
    kept = {settings.families[0]: names, CONTROL: (RELEASED,)}.get(family, OURS)
    return {name: tried[name] for name in names if name in kept}


def main_hole(plan: Plan, judges: Judges) -> Hole:
    """The hole of the main comparison: the first of the crops."""
    return partial(fixed, centre(plan, judges.crops[0]))


@recent  # the arms of a repetition share it
def main_judge(run: Run, plan: Plan, world: World, judges: Judges) -> Judge:
    """The judge of a repetition, which has learnt the hidden regions of all crops."""
    return judge_of(run, world, judges, [centre(plan, k) for k in judges.crops])


def measure_original(
    run: Run, plan: Plan, world: World, judges: Judges, tuned: bool
) -> tuple[Scores, Tensor, Tensor | None]:
    """Train the original of one repetition: its scores (2,), those of the best filling (2,), and, where weights are
    tuned, its mean cosines (2,) on validation images."""
    judge, mask = main_judge(run, plan, world, judges), centre(plan, judges.crops[0])
    scores, validation = _scores(original(run, plan, world, main_hole(plan, judges)), world, judge, mask, tuned)
    return scores, torch.tensor([best_filling(world, judge, mask, group) for group in "RF"]), validation


def measure_arm(
    run: Run, plan: Plan, world: World, judges: Judges, tuned: bool, method: str, weight: float
) -> tuple[Scores, Tensor | None]:
    """Unlearn the original of one repetition by one arm: scores (2,), and mean cosines (2,) on validation images."""
    judge, mask, hole = main_judge(run, plan, world, judges), centre(plan, judges.crops[0]), main_hole(plan, judges)
    net = unlearned(run, plan, world, original(run, plan, world, hole), hole, method, weight)
    return _scores(net, world, judge, mask, tuned)


def _scores(net: nn.Module, world: World, judge: Judge, mask: Tensor, tuned: bool) -> tuple[Scores, Tensor | None]:
    """Scores (2,) on test images and, where weights are tuned, mean cosines (2,) on validation images."""
    return scored(net, world, judge, mask), scored(net, world, judge, mask, "validation").cosine if tuned else None


def _measured(
    first: tuple[Scores, Tensor, Tensor | None], made: Mapping[Arm, tuple[Scores, Tensor | None]]
) -> Measured:
    """What was found of one repetition as one."""
    scores, floor, before = first
    validation = {arm: before - after for arm, (_, after) in made.items() if before is not None and after is not None}
    return Measured(scores, floor, {arm: one for arm, (one, _) in made.items()}, validation)


def _gathered(found: Sequence[Measured], tried: Mapping[str, Sequence[float]], arms: Sequence[Arm]) -> Family:
    """The repetitions of a family as one result."""
    return Family(
        stacked(one.original for one in found),
        torch.stack([one.floor for one in found]),
        {arm: stacked(one.arms[arm] for one in found) for arm in arms},
        {name: _best(found, name, weights) for name, weights in tried.items()},
    )


def _best(found: Sequence[Measured], name: str, weights: Sequence[float]) -> float:
    """The weight with the largest loss on forget images minus that on retain images, on the validation part."""
    if len(weights) == 1:
        return weights[0]
    return max(weights, key=lambda weight: sum(float(one.validation[name, weight].diff()) for one in found))


# The models of the main comparison, read from the cache.


class Pair(NamedTuple):
    """The original of a repetition, and what the paper's method made of it at its best weight."""

    original: nn.Module
    unlearned: nn.Module


def main_pair(run: Run, plan: Plan, world: World, judges: Judges, weight: float) -> Pair:
    """The two models of the main comparison."""
    hole = main_hole(plan, judges)
    first = original(run, plan, world, hole)
    return Pair(first, unlearned(run, plan, world, first, hole, RELEASED, weight))


def stages(settings: Settings, run: Run, worlds: Sequence[World], families: Mapping[str, Family]) -> Tensor:
    """Where the diffusion encoder tells forget images apart, (n, 3), a row a stage, the mean over repetitions.

    The columns: the fraction of the squared distance from forget codes to those of noise that lies in the stage; and
    how far forget and retain codes moved, as a fraction of the way.
    """
    weight = families["diffusion"].best[RELEASED]
    return torch.stack([_stages(settings, run, world, weight) for world in worlds]).mean(0).T


def _stages(settings: Settings, run: Run, world: World, weight: float) -> Tensor:
    plan = plan_for(settings, "diffusion", world)
    frozen, model = main_pair(run, plan, world, judges_of(settings), weight)
    assert isinstance(frozen, Inpainter) and isinstance(model, Inpainter)  # what the plan says
    mask = centre(plan, settings.crops[0])
    moved, fraction = {}, torch.empty(0)
    for group in "RF":
        generator = torch.Generator().manual_seed(world.seed)
        inputs = frozen.inputs(world.of(group), mask, generator)
        aim = frozen.with_noise(inputs, noise_from(generator)(inputs.noisy))
        with torch.no_grad():
            new, old, far = model.encode(inputs), frozen.encode(inputs), frozen.encode(aim)
        gaps = torch.tensor([float((c - b).square().sum()) for b, c in zip(old, far, strict=True)])
        steps = torch.tensor([float((a - b).square().sum()) for a, b in zip(new, old, strict=True)])
        moved[group], fraction = (steps / gaps).sqrt(), gaps / gaps.sum()  # the fraction kept is of forget images
    return torch.stack([fraction, moved["F"], moved["R"]])
