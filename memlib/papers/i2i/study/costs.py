"""What the study would cost, stage by stage, from its settings. A step of each kind is done once, and counted."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from memlib.cost import Work, counted
from memlib.papers.i2i.methods import Completer, UnlearningBatch
from memlib.papers.i2i.study import ablations, comparison, second, tasks
from memlib.papers.i2i.study.comparison import OURS, PRINTED, RELEASED
from memlib.papers.i2i.study.models import METHODS, NOISES, RETAIN_ONLY, Plan, build, centre
from memlib.papers.i2i.study.settings import Family, Settings
from memlib.papers.i2i.vqgan import VQGAN

_IMAGES = 2  # of the step that is counted
_RATE = 1e-4  # of a plan that trains nothing


class Part(NamedTuple):
    """Models that share an original: how they are built, the holes (1, 1, H, W) that it learns, steps of training and
    of unlearning, and the method of each unlearned model."""

    plan: Plan
    holes: list[Tensor]
    trained: int
    unlearned: int
    methods: list[str]


def work(settings: Settings) -> list[Work]:
    """The stages of a whole run, originals and unlearned models of each family.

    The model is built, or read from the folder of `checkpoint`. Images are taken as coloured. Completions of test
    images, judges, the steps of relearning and those on which theorem 1 is followed are left out.
    """
    found = []
    for family in settings.families:
        plan = _plan(settings, family)
        parts = parts_of(settings, plan)
        models = {part.plan.patch: build(part.plan) for part in parts}
        sizes = {patch: sum(p.numel() * p.element_size() for p in net.parameters()) for patch, net in models.items()}
        if not plan.checkpoint:
            steps = sum(
                part.trained * _mean(_training(models[part.plan.patch], hole) for hole in part.holes) for part in parts
            )
            images = 2 * settings.batch * settings.n_seeds
            disk = settings.n_seeds * sum(sizes[part.plan.patch] for part in parts)
            found.append(Work(f"training, {family}", images * steps, disk))
        steps = 0.0
        for part in parts:
            model = models[part.plan.patch]
            once = {name: _mean(_unlearning(model, hole, name) for hole in part.holes) for name in {*part.methods}}
            steps += part.unlearned * sum(once[name] for name in part.methods)
        images = settings.batch * settings.n_seeds
        disk = settings.n_seeds * sum(len(part.methods) * sizes[part.plan.patch] for part in parts)
        found.append(Work(f"unlearning, {family}", images * steps, disk))
    return found


def of_a_step(settings: Settings) -> list[list[str]]:
    """What a step of unlearning costs where the encoder moves alone, and where all weights move: a table, by family.

    Operations are of one retain and one forget image, as a multiple of those of the paper's method.
    """
    rows = [["family", "method", "trains", "weights", "operations"]]
    for family in settings.families:
        plan = _plan(settings, family)
        model, hole = build(plan), centre(plan, settings.crops[0])
        least = _unlearning(model, hole, RELEASED)
        for name in (RELEASED, "Max Loss"):
            parts = METHODS[name].trains  # type: ignore[attr-defined]
            weights = sum(p.numel() for part in parts for p in getattr(model, part).parameters())
            share = f"{_unlearning(model, hole, name) / least:.2f}"
            rows.append([family, name, " and ".join(parts), f"{weights:,}", share])
    return rows


def parts_of(settings: Settings, plan: Plan) -> list[Part]:
    """What is trained and unlearned in a family, once in each repetition; what two groups share counts once."""
    first = plan.family == settings.families[0]
    asked = settings.ablations if first else ()
    weights = comparison.weights_tried(settings)
    kept = METHODS if first else (RELEASED,) if plan.family == comparison.CONTROL else OURS
    arms = {(name, weight, "N(0, I)", "all") for name in kept for weight in weights[name]}
    arms.add((*RETAIN_ONLY, "N(0, I)", "all"))
    own = weights[RELEASED][0]  # the best of several is not known beforehand
    if "alpha" in asked:
        arms |= {(RELEASED, weight, "N(0, I)", "all") for weight in ablations.SWEEP}
        printed = {comparison.PAPER_WEIGHT, 1.0, *weights[PRINTED]}
        arms |= {(PRINTED, weight, "N(0, I)", "all") for weight in printed}
    if "noise" in asked:
        arms |= {(RELEASED, own, kind, "all") for kind in NOISES}
    if "data" in asked:
        arms |= {(RELEASED, own, "N(0, I)", source) for source in ("proxy", *map(str, ablations.PER_CLASS))}
    centres = [centre(plan, k) for k in settings.crops]
    parts = [Part(plan, centres[:1], plan.train_steps, plan.unlearn_steps, [name for name, *_ in arms])]
    if "crops" in asked:
        parts.append(Part(plan, centres, plan.train_steps, plan.unlearn_steps, [RELEASED, "Max Loss", "Retain Label"]))
    if "probe" in asked and not plan.checkpoint:
        parts.append(Part(plan, centres[:1], plan.train_steps, 0, []))
    return parts + _several_tasks(settings, plan, first)


def _several_tasks(settings: Settings, plan: Plan, first: bool) -> list[Part]:
    """The models of all tasks (I6, I7), and in the paper's family of I7 those of two holes."""
    plan = replace(plan, patch=tasks.on_finer_grid(settings).patch or plan.patch)
    if first and {"tasks", "second"} & {*settings.ablations}:
        jobs, times = tasks.jobs_of(plan, 0), tasks.LONGER
        holes = [tasks.hole(plan, task, ratio, 0) for (task, _), ratio in jobs.items()]
    elif not first and plan.family == second.PAPERS and "second" in settings.ablations:
        holes = [tasks.hole(plan, task, 0.5, 0) for task in ("centre", "outpaint")]
        return [Part(plan, holes, second.LONGER * plan.train_steps, settings.second_steps, [RELEASED])]
    else:
        return []
    return [Part(plan, holes, times * plan.train_steps, times * plan.unlearn_steps, [RELEASED])]


def _plan(settings: Settings, family: Family) -> Plan:
    """As `models.plan_for`, without images."""
    size, long = settings.size or 16, family in ("mae", "vqgan")
    steps = (settings.train_steps, settings.unlearn_steps) if long else settings.diffusion_steps
    return Plan(
        family=family,
        checkpoint=settings.checkpoint if family == settings.families[0] else "",
        shape=(3, size, size),
        patch=settings.patch or size // 4,
        width=settings.width,
        batch=settings.batch,
        vary=False,
        train_steps=steps[0],
        train_lr=_RATE,
        unlearn_steps=steps[1],
        unlearn_lr=_RATE,
        device=torch.device("cpu"),
    )


def _training(model: nn.Module, hole: Tensor) -> float:
    """Operations of a training step for each image: a VQ-GAN's words take half as many steps more."""
    x, generator = _images(model), torch.Generator().manual_seed(0)
    model.requires_grad_(True)

    def step() -> None:
        cast(Completer, model).loss(x, x, hole, generator).mean().backward()

    words = counted(lambda: model.tokenizer_loss(x).backward()) / 2 if isinstance(model, VQGAN) else 0.0
    return (counted(step) + words) / _IMAGES


def _unlearning(model: nn.Module, hole: Tensor, method: str) -> float:
    """Operations of an unlearning step for each retain image, which a forget image comes with."""
    frozen, loss = copy.deepcopy(model).requires_grad_(False), METHODS[method]
    model.requires_grad_(False)
    for part in loss.trains:  # type: ignore[attr-defined]
        getattr(model, part).requires_grad_(True)
    x, generator = _images(model), torch.Generator().manual_seed(0)

    def step() -> None:
        batch = UnlearningBatch(x, x, x, hole)
        torch.stack(loss(cast(Completer, model), cast(Completer, frozen), batch, generator)).mean().backward()

    return counted(step) / _IMAGES


def _images(model: nn.Module) -> Tensor:
    """Images (2, C, H, W) of noise for a model."""
    shape = cast(tuple[int, int, int], model.shape)
    return torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(0))


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
