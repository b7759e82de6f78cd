"""The experiment: who is trained, who is attacked, and what follows from the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memlib import membership
from memlib.errors import Refused
from memlib.papers.loop.study import measures, rounds
from memlib.papers.loop.study.guiding import Guide
from memlib.papers.loop.study.measures import Attack
from memlib.papers.loop.study.practices import practices
from memlib.papers.loop.study.results import Arm, Frontier, Loop, Practices, Results, counted
from memlib.papers.loop.study.settings import Settings
from memlib.papers.loop.study.world import Kind, World, forgotten, load
from memlib.papers.loop.unlearning import Recipe
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {"loop": ("C1", "C1b"), "frontier": ("C2",), "practices": ("C2b",)}

First = Mapping[tuple[Kind, str | float], tuple[rounds.Weights, dict[str, Tensor]]]


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images that this study cannot work with, as `run` would."""
    _worlds(settings, run)


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Run the groups of claims, all if empty. Raises Refused for images that do not fit, before anything is trained."""
    wanted, worlds = groups or tuple(GROUPS), _worlds(settings, run)
    described, loops, curves, changed = [], {}, None, None
    for number, (name, world) in enumerate(worlds.items()):
        asked = tuple(group for group in wanted if group == "loop" or not number)
        if not asked:
            continue
        described.append(world.description)
        own = replace(settings, kinds=settings.kinds[-1:]) if number else settings
        gone: dict[Kind, Tensor] = {kind: forgotten(world, kind, own.forget, run.seed) for kind in own.kinds}
        first = _first(world, gone, own, run, asked)
        if "loop" in asked:
            loops |= {f"{kind}{name}": one for kind, one in _loop(world, gone, own, run, first).items()}
        if "frontier" in asked:
            curves = _frontier(settings, first)
        if "practices" in asked and settings.practices:
            changed = _practices(world, gone[settings.kinds[0]], settings, run, first)
    return Results("\n".join(described), loops or None, curves, changed)


def _worlds(settings: Settings, run: Run) -> dict[str, World]:
    """The images of each source, by what is added to the name of a kind: nothing, or a comma and the source's kind."""
    kinds = [source.partition(":")[0] for source in (settings.data, *settings.others)]
    if len(set(kinds)) < len(kinds):
        raise Refused(f"data and others name the sources {', '.join(kinds)}: give each kind of source once")
    every = {"": load(settings, run)}
    return every | {
        f", {kind}": load(replace(settings, data=other), run)
        for kind, other in zip(kinds[1:], settings.others, strict=True)
    }


def attack_of(settings: Settings) -> Attack:
    """How the settings attack a model."""
    return Attack(
        settings.n_samples, settings.sampling_steps, settings.fpr, settings.levels, settings.draws, settings.view
    )


def guide_of(settings: Settings) -> Guide:
    """How the settings guide an attacker's samples. The rate is that of chapter 2."""
    return Guide(settings.clusters, settings.guide_width, settings.guide_steps, 5e-3, settings.batch, settings.guidance)


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


def _first(world: World, gone: dict[Kind, Tensor], settings: Settings, run: Run, wanted: Sequence[str]) -> First:
    """What is trained from scratch: an original and a retrained one of each kind, and the other rates of the first."""
    looks, how = looks_of(settings), recipe_of("original", settings)
    calls: dict[tuple[Kind, str | float], tuple] = {}
    for number, kind in enumerate(settings.kinds):
        seen = _seen(world, gone[kind], settings)
        if "loop" in wanted:
            calls[kind, "retrained"] = (how, world.inside & ~gone[kind], ())
        if "loop" in wanted or not number:
            followed = not number and {"frontier", "practices"} & set(wanted)
            calls[kind, "original"] = (how, seen, looks if followed else ())
        if "frontier" in wanted and not number:
            calls |= {(kind, rate): (replace(how, lr=rate), seen, looks) for rate in settings.rates}
    names = list(calls)
    inputs = [(world, settings.width, *call, attack_of(settings), run.seed) for call in calls.values()]

    def made(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return run.cached("trained", rounds.trained, *inputs[number])

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


def _loop(world: World, gone: dict[Kind, Tensor], settings: Settings, run: Run, first: First) -> dict[Kind, Loop]:
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
    steered: dict[tuple[Kind, str], dict[str, Tensor]] = {}
    if settings.n_guided:
        guided = replace(attack_of(settings), samples=settings.n_guided)
        inputs = [
            (world, settings.width, weights, gone[kind], guided, guide_of(settings), run.seed)
            for (kind, _), weights in after.items()
        ]
        steered = dict(zip(after, run.each("steered", rounds.steered, inputs), strict=True))
    return {kind: _judged(world, gone[kind], kind, found, steered, settings.fpr) for kind in settings.kinds}


def _judged(world: World, gone: Tensor, kind: Kind, found: Mapping, steered: Mapping, fpr: float) -> Loop:
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
            steered={name: _shares(of, inside.shape[1]) for name, of in steered.get((kind, arm), {}).items()},
        )
    return Loop(gone.cpu(), inside.cpu(), arms)


def _shares(of: Tensor, images: int) -> Tensor:
    """The samples that copy each of N images, as a fraction, (T, N), from what each of S copies, (T, S)."""
    return counted(of, images).cpu().float() / of.shape[1]


def _practices(world: World, gone: Tensor, settings: Settings, run: Run, first: First) -> Practices:
    usual, how = first[settings.kinds[0], "original"], recipe_of("original", settings)
    return practices(
        settings.practices, world, gone, usual, how, settings.times, settings.width, looks_of(settings),
        attack_of(settings), run,
    )  # fmt: skip


def _frontier(settings: Settings, first: First) -> Frontier:
    kind = settings.kinds[0]
    curves = {settings.lr: first[kind, "original"][1]} | {rate: first[kind, rate][1] for rate in settings.rates}
    parts = {name: {rate: one[name] for rate, one in curves.items()} for name in ("chosen", "quality", "share")}
    return Frontier(settings.lr, settings.rates[-1], looks_of(settings), **parts)
