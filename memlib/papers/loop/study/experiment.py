"""The experiment: who is trained, who is attacked, and what follows from the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memlib import membership
from memlib.papers.loop.study import measures, rounds
from memlib.papers.loop.study.measures import Attack
from memlib.papers.loop.study.results import Arm, Frontier, Loop, Results, counted
from memlib.papers.loop.study.settings import Settings
from memlib.papers.loop.study.world import Kind, World, forgotten, load
from memlib.papers.loop.unlearning import Recipe
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {"loop": ("C1",), "frontier": ("C2",)}


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images that this study cannot work with, as `run` would."""
    load(settings, run)


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Run the groups of claims, all if empty. Raises Refused for images that do not fit, before anything is trained."""
    wanted, world = groups or tuple(GROUPS), load(settings, run)
    gone: dict[Kind, Tensor] = {kind: forgotten(world, kind, settings.forget, run.seed) for kind in settings.kinds}
    first = _first(world, gone, settings, run, wanted)
    loop = _loop(world, gone, settings, run, first) if "loop" in wanted else None
    frontier = _frontier(settings, first) if "frontier" in wanted else None
    return Results(world.description, loop, frontier)


def attack_of(settings: Settings) -> Attack:
    """How the settings attack a model."""
    return Attack(
        settings.n_samples, settings.sampling_steps, settings.fpr, settings.levels, settings.draws, settings.view
    )


def recipe_of(arm: str, settings: Settings) -> Recipe:
    """How the settings train an arm."""
    if arm not in rounds.TUNED:
        return Recipe(settings.train_steps, settings.lr, settings.batch)
    alpha = {
        "ascent": settings.alpha_ascent,
        "orthogonal": settings.alpha_orthogonal,
        "obtuse": settings.alpha_obtuse,
    }.get(arm, 1.0)
    return Recipe(settings.tune_steps, settings.tune_lr, settings.batch, alpha, settings.level)


def looks_of(settings: Settings) -> tuple[int, ...]:
    """The steps at which a training is judged on its way; those that it reaches."""
    return tuple(look for look in settings.looks if look <= settings.train_steps)


def _seen(world: World, gone: Tensor, settings: Settings) -> Tensor:
    """How often each model sees each image, (T, N)."""
    return world.inside.long() + (settings.times - 1) * gone.long()


def _first(
    world: World, gone: dict[Kind, Tensor], settings: Settings, run: Run, wanted: Sequence[str]
) -> dict[tuple[Kind, str | float], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What is trained from scratch: an original and a retrained one of each kind, and the other rates of the first."""
    looks, how = looks_of(settings), recipe_of("original", settings)
    calls: dict[tuple[Kind, str | float], tuple] = {}
    for number, kind in enumerate(settings.kinds):
        seen = _seen(world, gone[kind], settings)
        if "loop" in wanted:
            calls[kind, "retrained"] = (how, world.inside & ~gone[kind], ())
        if "loop" in wanted or not number:
            calls[kind, "original"] = (how, seen, () if number or "frontier" not in wanted else looks)
        if "frontier" in wanted and not number:
            calls |= {(kind, rate): (replace(how, lr=rate), seen, looks) for rate in settings.rates}
    names = list(calls)
    inputs = [(world, settings.width, *call, attack_of(settings), run.seed) for call in calls.values()]

    def made(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return run.cached("trained", rounds.trained, *inputs[number], fresh=False)

    def then(number: int) -> list[tuple]:
        """Originals are unlearned while others still train."""
        kind, name = names[number]
        if name != "original" or "loop" not in wanted:
            return []
        every = _unlearning(world, gone[kind], settings, run, made(number)[0])
        return [("unlearned", rounds.unlearned, one) for one in every]

    run.cascade([("trained", rounds.trained, one) for one in inputs], then)
    return {name: made(number) for number, name in enumerate(names)}


def _unlearning(world: World, gone: Tensor, settings: Settings, run: Run, weights: rounds.Weights) -> list[tuple]:
    """The inputs of `rounds.unlearned` for each way to unlearn the originals with these weights."""
    return [(world, settings.width, weights, arm, gone, recipe_of(arm, settings), run.seed) for arm in rounds.TUNED]


def _loop(world: World, gone: dict[Kind, Tensor], settings: Settings, run: Run, first: Mapping) -> dict[str, Loop]:
    names: list[tuple[Kind, str]] = [(kind, arm) for kind in settings.kinds for arm in rounds.TUNED]
    inputs = [
        one
        for kind in settings.kinds
        for one in _unlearning(world, gone[kind], settings, run, first[kind, "original"][0])
    ]
    after = dict(zip(names, run.each("unlearned", rounds.unlearned, inputs), strict=True))
    after |= {(kind, arm): first[kind, arm][0] for kind in settings.kinds for arm in ("original", "retrained")}
    relearn = Recipe(settings.relearn_steps, settings.tune_lr, settings.batch)
    inputs = [
        (world, settings.width, weights, gone[kind], attack_of(settings), relearn, settings.known, run.seed)
        for (kind, _), weights in after.items()
    ]
    found = dict(zip(after, run.each("attacked", rounds.attacked, inputs), strict=True))
    return {kind: _judged(world, gone[kind], kind, found, settings.fpr) for kind in settings.kinds}


def _judged(world: World, gone: Tensor, kind: str, found: Mapping, fpr: float) -> Loop:
    """The arms of one kind of forgetting, once every model has answered."""
    inside = world.inside
    before = found[kind, "original"]["statistic"]
    arms = {}
    for arm in rounds.NAMES:
        answer = found[kind, arm]
        scores = torch.stack(
            [
                membership.lira(own, before[others], inside[others])
                for own, others in (
                    (answer["statistic"][t], membership.shadows(t, len(inside))) for t in range(len(inside))
                )
            ]
        )
        rest = inside & ~gone
        change = before - answer["statistic"]
        arms[arm] = Arm(
            answer["copies"].shape[1],
            *(counted(answer[name], inside.shape[1]).cpu() for name in ("copies", "relearned")),
            *(answer[name].cpu() for name in ("others", "restored", "precision", "distance", "loss")),
            hits=membership.transferred(scores, inside, fpr).hits.cpu(),
            area=measures.area(scores, gone, ~inside),
            revealed=measures.area(change, gone, rest),
        )
    return Loop(gone.cpu(), inside.cpu(), arms)


def _frontier(settings: Settings, first: Mapping) -> Frontier:
    kind = settings.kinds[0]
    curves = {settings.lr: first[kind, "original"][1]} | {rate: first[kind, rate][1] for rate in settings.rates}
    parts = {name: {rate: one[name] for rate, one in curves.items()} for name in ("chosen", "quality", "share")}
    return Frontier(settings.lr, settings.rates[-1], looks_of(settings), **parts)
