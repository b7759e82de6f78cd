"""The experiment: what is trained, what is measured on it, and how the groups of claims are put together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.generators import Network, Training
from memlib.papers.synthesis.study import (
    ablation,
    attributes,
    fine_tuning,
    pipelines,
    printed,
    sources,
    theory,
    usefulness,
)
from memlib.papers.synthesis.study.gathered import Made
from memlib.papers.synthesis.study.results import Results
from memlib.papers.synthesis.study.settings import Settings
from memlib.papers.synthesis.study.world import World
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {
    "membership": ("R4", "R4b"),
    "copies": ("R5",),
    "seeds": ("R7",),
    "sizes": ("R10",),
    "prior": (),
    "blind": (),
    "kernel": ("R1",),
    "gap": ("R3",),
    "settings": ("R9",),
    "bound": ("R13",),
    "fine_tuning": ("R2",),
    "ablation": ("R6",),
    "utility": ("R11", "R12"),
    "attributes": ("R8",),
}

PARTS = 8  # pipelines of a call: four pairs
_LINE = "laws on a line"  # what takes no images
_FACES = "faces of their own"  # what takes no source
_FIRST = ("fine_tuning", "ablation")  # on the first source alone
_REMADE = (0.25, 0.5)  # strengths at which an attacker lets an image be remade

Call = tuple[str, Callable[..., Any], tuple]


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Run the groups of claims (all if empty), but those that the settings leave out.

    Raises Refused for images that do not fit, before anything is trained.

    One round of calls, shared between processes; what they return is judged here.
    """
    off = {
        "attributes": not settings.attributes,
        "fine_tuning": not settings.gammas,
        "ablation": not settings.guidances,
        "utility": not settings.utility,
    }
    wanted = [name for name in groups or GROUPS if not off.get(name)]
    worlds = _checked(settings, run)
    everywhere = [name for name in wanted if name not in _FIRST]
    mine_of = {one.name: wanted if one is worlds[0] else everywhere for one in worlds}
    plans = {one.name: _calls(one, settings, run, mine_of[one.name], one is worlds[0]) for one in worlds}
    plans[_LINE] = _on_a_line(settings, run, wanted)
    plans[_FACES] = _of_faces(settings, run) if "attributes" in wanted else {}
    every = [(name, key) for name, calls in plans.items() for key in calls]
    done = dict(zip(every, run.together([plans[name][key] for name, key in every]), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for one in worlds:
        mine = {key: value for (name, key), value in done.items() if name == one.name}
        for group, part in _gathered(one, settings, mine, mine_of[one.name]).items():
            found.setdefault(group, {})[one.name] = part
    found |= {group: {_LINE: part} for (name, group), part in done.items() if name == _LINE}
    if "attributes" in wanted:
        found["attributes"] = {key: part for (name, key), part in done.items() if name == _FACES}
    if "settings" in wanted:
        found["settings"] = {"tables 5 to 8": printed.compared()}
    return Results("\n".join(one.description for one in worlds), **found)


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images that this study cannot work with, as `run` would."""
    _checked(settings, run)


def _checked(settings: Settings, run: Run) -> list[World]:
    """The worlds of all sources. Raises Refused for images that do not fit, those of the attributes among them."""
    for name in settings.attributes:
        attributes.check(name, faces_of(settings))
    return sources.load(settings, run)


def recipe_of(settings: Settings) -> Recipe:
    """How the settings train a classifier."""
    return Recipe(settings.classifier_width, 1, settings.classifier_steps, settings.batch, settings.classifier_lr)


def real_recipes(settings: Settings) -> dict[str, Recipe]:
    """Real training, by name: with looks on the way, with smoothed labels, and with noise on the images."""
    plain = recipe_of(settings)
    ways = {"real": replace(plain, looks=settings.looks)}
    ways |= {f"real, labels smoothed {x}": replace(plain, smoothing=x) for x in settings.smoothing}
    return ways | {f"real, noise {x}": replace(plain, jitter=x) for x in settings.jitter}


def parts_of(world: World, settings: Settings, seed: int) -> list[pipelines.Part]:
    """The pipelines of a world, a few at a time."""
    pool = world.pool
    network = Network(tuple(pool.images.shape[1:]), settings.width, 2, pool.classes, float(pool.images.std()))
    how = Training(settings.train_steps, settings.batch, settings.lr)
    rows = range(pool.pipelines)
    return [
        pipelines.Part(
            world, tuple(rows[i : i + PARTS]), network, how, settings.guidance, settings.sampling_steps, seed
        )
        for i in range(0, len(rows), PARTS)
    ]


def _on_a_line(settings: Settings, run: Run, wanted: Sequence[str]) -> dict[Any, Call]:
    """The calls of the groups that take no images: the halves differ in the seed."""
    seed = run.seed + (500 if settings.half == "report" else 0)
    drawn = (settings.kernel_draws, settings.kernel_points, seed)
    trained = (settings.chain_levels, settings.chain_points, settings.networks, settings.network_steps, seed)
    calls: dict[Any, Call] = {
        "kernel": ("kernel", theory.kernel, drawn),
        "bound": ("bound", theory.bound, trained),
    }
    return {name: call for name, call in calls.items() if name in wanted}


def _calls(one: World, settings: Settings, run: Run, wanted: Sequence[str], drawn: bool) -> dict[Any, Call]:
    """The calls that the wanted groups need, by key; those of the first parts come first. Pictures if it is drawn."""
    parts, recipe = parts_of(one, settings, run.seed), recipe_of(settings)
    sizes = tuple(sorted({1, *settings.sizes})) if "sizes" in wanted else (1,)
    strengths = [settings.strength] if {"membership", "copies", "sizes", "prior"} & set(wanted) else []
    strengths += [x for x in settings.strengths if x != settings.strength] if "prior" in wanted else []
    if "membership" in wanted and 1.0 not in strengths:
        strengths.append(1.0)
    calls: dict[Any, Call] = {}
    for strength in strengths:
        for i, part in enumerate(parts):
            main = strength == settings.strength
            inputs = (part, strength, sizes if main else (1,), recipe, recipe, drawn and i == 0, run)
            calls["synthetic", strength, i] = ("synthetic", pipelines.synthetic, inputs)
    for i, part in enumerate(parts):
        if {"membership", "sizes"} & set(wanted):
            calls["real", i] = ("real", pipelines.real, (part, real_recipes(settings), run))
        if "membership" in wanted:
            inputs = (part, _REMADE, settings.asked, settings.draws, run)
            calls["answers", i] = ("answers", pipelines.answers, inputs)
            calls["weights", i] = ("weights", pipelines.weights, (part, settings.levels, settings.draws, run))
        if "blind" in wanted:
            middle = settings.levels[len(settings.levels) // 2]
            calls["moved", i] = ("moved", pipelines.moved, (part, middle, settings.draws, run))
        if "gap" in wanted:
            small = theory.Small(2, 16, math.ceil(settings.sets / one.pool.pipelines))
            calls["gap", i] = ("gap", theory.measured, (part, settings.strength, recipe, settings.fresh, small, run))
    if "seeds" in wanted:
        again = pipelines.repeated(parts[0], settings.seeds)
        inputs = (again, settings.strength, (1,), recipe, recipe, False, run)
        calls["seeds"] = ("seeds", pipelines.synthetic, inputs)
    if "fine_tuning" in wanted:
        for regime in (fine_tuning.OTHER, fine_tuning.SAME):
            inputs = (one, regime, tuning_of(one, settings), run.seed, run)
            calls["fine_tuning", regime] = ("fine_tuning", fine_tuning.measured, inputs)
    if "ablation" in wanted:
        how = Training(settings.ablation_steps, settings.batch, settings.lr)
        network, scales = tuning_of(one, settings).network, settings.guidances
        inputs = (one, network, how, scales, recipe, settings.strength, settings.sampling_steps, run.seed, run)
        calls["ablation"] = ("ablation", ablation.measured, inputs)
    if "utility" in wanted:
        for i, part in enumerate(parts):
            inputs = (part, settings.strength, recipe, run.seed, run)
            calls["utility", i] = ("utility", usefulness.measured, inputs)
    return calls


def faces_of(settings: Settings) -> attributes.Faces:
    """What faces the settings use for attributes."""
    return attributes.Faces(settings.half, 32, settings.n_faces, settings.n_faces, settings.face_latent, settings.pairs)


def _of_faces(settings: Settings, run: Run) -> dict[Any, Call]:
    """The calls of the attributes, which have faces of their own."""
    which = faces_of(settings)
    base = Training(settings.base_steps, settings.batch, settings.lr)
    tuned = Training(settings.base_steps, settings.batch, settings.lr)
    how = (settings.tuned_width, base, tuned, recipe_of(settings), settings.guidance, settings.strength)
    return {
        name: ("attributes", attributes.measured, (name, which, *how, settings.sampling_steps, run.seed, run))
        for name in settings.attributes
    }


def tuning_of(one: World, settings: Settings) -> fine_tuning.Tuning:
    """How the settings fine-tune generators of a source."""
    images, batch = one.pool.images, settings.batch
    return fine_tuning.Tuning(
        network=Network(tuple(images.shape[1:]), settings.tuned_width, 2, one.pool.classes, float(images.std())),
        base=Training(settings.base_steps, batch, settings.lr),
        whole=Training(settings.tuned_steps, batch, settings.tuned_lr),
        adapters=Training(settings.adapter_steps, batch, settings.lr),
        rank=settings.rank,
        gammas=settings.gammas,
        levels=settings.levels,
        draws=settings.draws,
        sampling=settings.sampling_steps,
        recipe=recipe_of(settings),
    )


def _gathered(one: World, settings: Settings, done: dict[Any, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """The results of the wanted groups for one source."""
    made = Made(one, settings, done)
    ways = {
        "membership": made.membership,
        "copies": made.retrieval,
        "seeds": made.seeds,
        "sizes": made.sizes,
        "prior": made.prior,
        "blind": made.blind,
        "gap": made.gap,
        "fine_tuning": made.fine_tuning,
        "ablation": lambda: done["ablation"],
        "utility": lambda: usefulness.joined(made.parts("utility")),
    }
    return {name: make() for name, make in ways.items() if name in wanted}
