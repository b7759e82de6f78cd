"""The experiment: from the settings to `Results`, group by group of claims.

A group is planned as independent calls, by name; those that two groups share are made once. All calls of all groups go
through one pool of processes, and each group is then put together from what came back.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from memlib.papers.learning_rate.study import digits, dimensions, edge, memory, relaxations
from memlib.papers.learning_rate.study.inputs import Calls, Done, Inputs, column, inputs_of, planned, threshold
from memlib.papers.learning_rate.study.line import Network, joined, pairs, row
from memlib.papers.learning_rate.study.results import (
    Digits,
    Dimensions,
    Edge,
    Factor,
    Gaps,
    Looks,
    Memory,
    Relaxation,
    Results,
    Smoothness,
    Theorem,
)
from memlib.papers.learning_rate.study.settings import Settings, check
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {
    "memory": ("L1",),
    "theorem": ("L2",),
    "edge": ("L3", "L3b"),
    "dimensions": ("L4",),
    "gaps": ("L5",),
    "smoothness": ("L6",),
    "digits": ("L7", "L7b"),
    "relaxations": (),  # decides no claim
}

MULTIPLES = [1e-6, 1e-5, 1e-4, 1e-2, 2.0]  # of each network's own threshold
SIGMAS = [0.2, 0.25, 0.32, 0.4, 0.5]  # sigma / mu
COUNTS = [3, 4, 6, 8]  # training points
SPACINGS = [0.7, 0.85, 1.0, 1.2, 1.5]  # all points pulled apart
BOUNDS = [3.0, 10.0, 30.0, 100.0]  # A sigma^2
OPENINGS = [0.25, 0.4, 0.6, 0.8, 1.0]  # the gap of two pairs
_MIDDLE = 1  # the multiple at which a factor is varied


def run(settings: Settings, run: Run, groups: Iterable[str] = ()) -> Results:
    """Run groups of claims (all if empty). Raises Refused for settings that do not fit, before anything is trained."""
    check(settings)
    chosen = tuple(groups) or tuple(GROUPS)
    inputs = inputs_of(settings, run, "digits" in chosen)
    calls = calls_of(inputs, chosen)
    done = dict(zip(calls, run.together(calls.values()), strict=True))
    return Results(inputs.description, **{group: _PLANS[group][1](inputs, done) for group in chosen})


def calls_of(given: Inputs, groups: Iterable[str]) -> Calls:
    """The calls of some groups; what two of them share is there once."""
    calls: Calls = {}
    for group in groups:
        calls |= _PLANS[group][0](given)
    return calls


# L1 and L6: the main sweep.


def _main_calls(given: Inputs) -> Calls:
    rates, steps = given.settings.rates, given.settings.steps
    half = (len(rates) + 1) // 2
    parts = {"main, low rates": rates[:half], "main, high rates": rates[half:]}  # for two processes
    return {
        name: planned(given, column(part), steps, levels=given.levels, with_sharpness=True)
        for name, part in parts.items()
    }


def _memory_calls(given: Inputs) -> Calls:
    rates, steps = column(given.settings.rates), given.settings.steps
    full = planned(given, rates, steps, batch=0, with_sharpness=True)
    return _main_calls(given) | {"full batch": full, "abrupt": planned(given, rates, steps, abrupt=True)}


def _memory(given: Inputs, done: Done) -> Memory:
    main = joined([done["main, low rates"], done["main, high rates"]])
    settings = given.settings
    arms = {name: done[name] for name in ("full batch", "abrupt")}
    return memory.measure(main, arms, given.points, given.first, settings.rates, settings.decisive, given.levels)


def _smoothness(given: Inputs, done: Done) -> Smoothness:
    main = joined([done["main, low rates"], done["main, high rates"]])
    return memory.smoothness(main, given.first, given.settings.rates, given.levels)


# L2: multiples of each network's own threshold, and one factor varied at a time.


def _own_rates(given: Inputs, points: Tensor, levels: Tensor, multiples: list[float]) -> Tensor:
    return column(multiples) * threshold(given, points, levels).cpu()


def _varied(given: Inputs) -> dict[str, tuple[Tensor, Network]]:
    """Points and network by factor and value."""
    settings, keys, plain = given.settings, given.keys, given.network
    found = {f"n {n}": (row(keys, n), plain) for n in COUNTS}
    found |= {f"Delta {gap}": (row(keys, settings.n_points, gap), plain) for gap in SPACINGS}
    return found | {f"A {a}": (given.points, Network(settings.width, settings.start, a)) for a in BOUNDS}


def _theorem_calls(given: Inputs) -> Calls:
    levels, steps = torch.tensor(SIGMAS), given.settings.steps // 2
    rates = _own_rates(given, given.points, levels, MULTIPLES)
    calls = {"sigma": planned(given, rates, steps, levels=levels, with_sharpness=True)}
    for name, (points, network) in _varied(given).items():
        rates = _own_rates(given, points, given.levels[-1:], [MULTIPLES[_MIDDLE], MULTIPLES[-1]])
        calls[f"factor {name}"] = planned(given, rates, steps, points=points, network=network)
    return calls


def _theorem(given: Inputs, done: Done) -> Theorem:
    main = done["sigma"]
    values = {"n": COUNTS, "Delta": SPACINGS, "A": BOUNDS}
    found = {
        name: Factor(some, torch.stack([done[f"factor {name} {value}"].excess[1, ..., 0] for value in some], 1))
        for name, some in values.items()
    }
    return Theorem(
        bound=given.settings.bound,
        n_points=given.settings.n_points,
        multiples=MULTIPLES,
        threshold=threshold(given, given.points, torch.tensor(SIGMAS)).cpu(),
        levels=SIGMAS,
        relative=main.excess[1].double(),
        silent=main.silent[0],
        sharp=main.sharp,
        factors=found,
    )


# L5: the smallest gap, at a rate and at the smallest one, which is as long at work.


def _gaps_calls(given: Inputs) -> Calls:
    settings = given.settings
    rates = column([settings.rates[0], settings.gap_rate])
    points = {f"spacing {gap}": row(given.keys, settings.n_points, gap) for gap in SPACINGS}
    points |= {f"pairs {gap}": pairs(given.keys, gap) for gap in OPENINGS}
    return {name: planned(given, rates, settings.steps, points=some) for name, some in points.items()}


def _gaps(given: Inputs, done: Done) -> Gaps:
    missing, control = {}, {}
    for name, values in {"spacing": SPACINGS, "pairs": OPENINGS}.items():
        parts = [done[f"{name} {value}"] for value in values]
        fractions = torch.stack([part.excess[..., 0].double() / part.silent[..., 0] for part in parts])  # (V, 3, 2, R)
        control[name], missing[name] = fractions[:, 2, 0], fractions[:, 1, 1]
    settings = given.settings
    return Gaps(settings.gap_rate, settings.rates[0], SPACINGS, OPENINGS, missing, control)


# L3: the edge.


def _edge_calls(given: Inputs) -> Calls:
    settings = given.settings
    network = Network(edge.WIDTH, settings.start, settings.bound)
    runs = (given.points, given.keys)
    pushed = (*runs, given.levels[-1:], network, settings.edge_steps, settings.batch)
    calls: Calls = {"leaving": ("edge", edge.leaving, pushed)}
    for arm, (optimiser, batch) in _sharp_arms(settings).items():
        inputs = (optimiser, *runs, network, batch, settings.sharpness_at)
        calls[f"sharpness, {arm}"] = ("sharpening", edge.sharpening, inputs)
    return calls


def _sharp_arms(settings: Settings) -> dict[str, tuple[str, int]]:
    """By arm: optimiser and batch, 0 for the full batch."""
    return {"full batch": ("SGD", 0), "mini-batch": ("SGD", settings.batch), "Adam, full batch": ("Adam", 0)}


def _edge(given: Inputs, done: Done) -> Edge:
    found = {arm: done[f"sharpness, {arm}"] for arm in _sharp_arms(given.settings)}
    return Edge(
        leaving=done["leaving"],
        rates=edge.RATES,
        settled=edge.SETTLED,
        steps=given.settings.sharpness_at,
        sharpness={arm: sharp[0] for arm, (sharp, _) in found.items()},
        with_kinks={arm: sharp[1] for arm, (sharp, _) in found.items()},
        gradient={arm: slopes for arm, (_, slopes) in found.items()},
    )


# L4: higher dimension; and the relaxations, which decide nothing.


def _dimension_calls(given: Inputs) -> Calls:
    settings = given.settings
    shared = (settings.n_runs, settings.n_points, given.first, settings.dim_width, settings.dim_steps, given.points)
    return {f"d {d}": ("dimension", dimensions.in_dimension, (d, *shared)) for d in settings.dims}


def _dimensions(given: Inputs, done: Done) -> Dimensions:
    found = torch.stack([done[f"d {d}"] for d in given.settings.dims])
    return Dimensions(given.settings.dims, *found.unbind(1))


def _relaxation_calls(given: Inputs) -> Calls:
    settings, keys = given.settings, given.first + torch.arange(relaxations.RUNS)
    points = row(keys, settings.n_points).to(given.points)
    common = (points, keys, given.levels[-1:], given.network, settings.steps // 2, settings.batch)
    return {f"relaxed {kind}": ("relaxed", relaxations.relaxed, (kind, *common)) for kind in relaxations.RATES}


def _relaxations(given: Inputs, done: Done) -> dict[str, Relaxation]:
    return {kind: done[f"relaxed {kind}"] for kind in relaxations.RATES}


# L7: digits.


def _digits_calls(given: Inputs) -> Calls:
    settings, images = given.settings, given.images
    assert images is not None
    seeds = list(range(given.first, given.first + settings.choosing + settings.testing))
    train = (settings.image_steps, settings.image_batch)
    adam, tested = ("adam", settings.image_rates), seeds[settings.choosing :]
    calls: Calls = {
        f"{n} digits": ("digits", digits.trained, (images, *adam, seeds, n, *train)) for n in settings.image_sizes
    }
    watched = settings.watched
    annealed = (images, *adam, tested, watched, *train, settings.image_rates[0])
    plain = (images, "sgd", settings.sgd_rates, tested, watched, *train)
    # The same networks up to their first look: where they are as far from their images as one that has learnt little.
    early = (images, *adam, seeds, watched, _first_look(settings), settings.image_batch)
    named = {"annealed": annealed, "SGD": plain, "early": early}
    return calls | {name: ("digits", digits.trained, inputs) for name, inputs in named.items()}


def _first_look(settings: Settings) -> int:
    return max(1, round(digits.SHARES[0] * settings.image_steps))


def _steps_seen(settings: Settings) -> list[int]:
    """The steps of all looks at the watched networks."""
    ends = _first_look(settings), settings.image_steps
    return sorted({max(1, round(share * end)) for end in ends for share in digits.SHARES})


def _digits(given: Inputs, done: Done) -> Digits:
    settings, images = given.settings, given.images
    assert images is not None

    def looks(name: str, rates: list[float], found: digits.Trained, seeds: int, early: Tensor | None = None) -> Looks:
        shape = (len(rates), seeds)
        every = found.looks if early is None else torch.cat([early[:, :-1], found.looks], 1)
        return Looks(name, rates, settings.watched, every.view(*shape, *every.shape[1:]), found.sharp.view(shape))

    seeds = settings.choosing + settings.testing
    shape = (len(settings.image_rates), seeds)
    false = digits.copied(images.held_out, images.members)
    copies = [done[f"{n} digits"].looks[:, -1, 0].view(shape) for n in settings.image_sizes]
    return Digits(
        rates=settings.image_rates,
        sizes=settings.image_sizes,
        choosing=settings.choosing,
        copied=torch.stack(copies),
        steps=_steps_seen(settings),
        constant=looks("Adam", settings.image_rates, done[f"{settings.watched} digits"], seeds, done["early"].looks),
        annealed=looks("Adam, annealed", settings.image_rates, done["annealed"], settings.testing),
        sgd=looks("SGD", settings.sgd_rates, done["SGD"], settings.testing),
        false_copies=(false.k, false.n),
    )


_PLANS: dict[str, tuple[Callable[[Inputs], Calls], Callable[[Inputs, Done], Any]]] = {
    "memory": (_memory_calls, _memory),
    "smoothness": (_main_calls, _smoothness),
    "dimensions": (_dimension_calls, _dimensions),
    "digits": (_digits_calls, _digits),
    "theorem": (_theorem_calls, _theorem),
    "gaps": (_gaps_calls, _gaps),
    "edge": (_edge_calls, _edge),
    "relaxations": (_relaxation_calls, _relaxations),
}
