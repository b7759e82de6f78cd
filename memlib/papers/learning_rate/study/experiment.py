"""The experiment: from the settings to `Results`, group by group of claims.

A group is planned as independent calls, by name; those that two groups share are made once. All calls of all groups go
through one pool of processes, and each group is then put together from what came back.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from memlib.papers.learning_rate.fixed_level import rate_threshold
from memlib.papers.learning_rate.study import digits, dimensions, edge, memory, relaxations
from memlib.papers.learning_rate.study.line import (
    Network,
    at_level,
    joined,
    members,
    noise_levels,
    pairs,
    row,
    sweep,
)
from memlib.papers.learning_rate.study.results import (
    Bracket,
    Digits,
    Dimensions,
    Edge,
    Factor,
    Gaps,
    Memory,
    Relaxation,
    Results,
    Smoothness,
    Theorem,
    Walk,
)
from memlib.papers.learning_rate.study.settings import Settings, check
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {
    "memory": ("L1",),
    "theorem": ("L2",),
    "edge": ("L3",),
    "dimensions": ("L4",),
    "gaps": ("L5",),
    "smoothness": ("L6",),
    "digits": ("L7",),
    "relaxations": (),  # decides no claim
}

_MIDDLE = 1e-3  # the rate at which one factor is varied at a time
SIGMAS = [0.2, 0.25, 0.32, 0.4, 0.5]  # sigma / mu
COUNTS = [3, 4, 6, 8]  # training points
SPACINGS = [0.7, 0.85, 1.0, 1.2, 1.5]  # all points pulled apart
BOUNDS = [1.0, 3.0, 10.0, 30.0]  # A sigma^2
OPENINGS = [0.25, 0.4, 0.6, 0.8, 1.0]  # the gap of two pairs


Calls = dict[str, tuple[str, Callable[..., Any], tuple]]  # by name: the artefact's name, a function, its inputs
Done = Mapping[str, Any]  # what the calls returned, by name


@dataclass(frozen=True)
class Inputs:
    """What the calls are made of: the runs' keys (R,), their points (R, n, 1), noise levels (K,), and the digits."""

    settings: Settings
    first: int
    keys: Tensor
    points: Tensor
    levels: Tensor
    network: Network
    images: digits.Split | None

    @property
    def three(self) -> list[float]:
        """The smallest rate, a middle one, and twice the theorem's threshold, the largest over runs, lowest level."""
        r, k = members(len(self.keys), len(self.levels))
        every = rate_threshold(at_level(self.points[r], self.levels[k]))
        return [self.settings.rates[0], _MIDDLE, 2 * float(every.view(len(self.keys), -1)[:, -1].max())]

    @property
    def description(self) -> str:
        """The data, in a sentence."""
        last = int(self.keys[-1])
        line = f"line: {len(self.keys)} runs of {self.settings.n_points} points, keys {self.first} to {last}"
        return line if self.images is None else f"{line}; {self.images.description}"


def run(settings: Settings, run: Run, groups: Iterable[str] = ()) -> Results:
    """Run groups of claims (all if empty). Raises Refused for settings that do not fit, before anything is trained."""
    check(settings)
    chosen = tuple(groups) or tuple(GROUPS)
    inputs = inputs_of(settings, run, "digits" in chosen)
    calls: Calls = {}
    for group in chosen:
        calls |= _PLANS[group][0](inputs)
    done = dict(zip(calls, run.together(calls.values()), strict=True))
    return Results(inputs.description, **{group: _PLANS[group][1](inputs, done) for group in chosen})


def inputs_of(settings: Settings, run: Run, with_images: bool = True) -> Inputs:
    """The inputs of these settings. The explore and the report half never share a draw."""
    first = 1000 * run.seed + (500 if settings.half == "report" else 0)
    keys = first + torch.arange(settings.n_runs)
    points = row(keys, settings.n_points).to(run.device)
    levels = noise_levels(settings.lowest, settings.n_levels)
    network = Network(settings.width, settings.start, settings.bound)
    images = digits.split(settings.half, run.seed, run.device) if with_images else None
    return Inputs(settings, first, keys, points, levels, network, images)


def _sweep(
    given: Inputs,
    rates: list[float],
    steps: int,
    *,
    points: Tensor | None = None,
    levels: Tensor | None = None,
    network: Network | None = None,
    batch: int | None = None,
    looks: tuple[int, ...] = (),
) -> tuple[str, Callable[..., Any], tuple]:
    """A sweep over the runs at the lowest level, but for what is given."""
    points = given.points if points is None else points.to(given.points)
    levels = given.levels[-1:] if levels is None else levels
    batch = given.settings.batch if batch is None else batch
    return "sweep", sweep, (points, given.keys, rates, levels, network or given.network, steps, batch, looks)


# L1 and L6: the main sweep.


def _main_calls(given: Inputs) -> Calls:
    rates, steps = given.settings.rates, given.settings.steps
    looks, half = memory.looks(steps, rates), (len(rates) + 1) // 2
    parts = {"main, low rates": rates[:half], "main, high rates": rates[half:]}  # for two processes
    return {name: _sweep(given, part, steps, levels=given.levels, looks=looks) for name, part in parts.items()}


def _memory_calls(given: Inputs) -> Calls:
    settings = given.settings
    return _main_calls(given) | {"full batch": _sweep(given, settings.rates, settings.steps // 2, batch=0)}


def _memory(given: Inputs, done: Done) -> Memory:
    main = joined([done["main, low rates"], done["main, high rates"]])
    settings = given.settings
    common = (given.points, given.first, settings.rates, given.levels, settings.steps)
    return memory.measure(main, done["full batch"], *common)


def _smoothness(given: Inputs, done: Done) -> Smoothness:
    main = joined([done["main, low rates"], done["main, high rates"]])
    return memory.smoothness(main, given.first, given.settings.rates, given.levels)


# L2 and L5: one factor varied at a time, at a middle rate and above the threshold.


def _spacing_calls(given: Inputs) -> Calls:
    rates, steps, count = given.three[1:], given.settings.steps // 4, given.settings.n_points
    return {f"Delta {gap}": _sweep(given, rates, steps, points=row(given.keys, count, gap)) for gap in SPACINGS}


def _theorem_calls(given: Inputs) -> Calls:
    settings, rates = given.settings, given.three
    steps = settings.steps // 4
    calls = {"sigma": _sweep(given, rates, settings.steps // 2, levels=torch.tensor(SIGMAS))}
    calls |= {f"n {n}": _sweep(given, rates[1:], steps, points=row(given.keys, n)) for n in COUNTS}
    for bound in BOUNDS:
        network = Network(settings.width, settings.start, bound)
        calls[f"A {bound}"] = _sweep(given, rates[1:], steps, network=network)
    return calls | _spacing_calls(given)


def _gaps_calls(given: Inputs) -> Calls:
    rates, steps = given.three[1:], given.settings.steps // 4
    opened = {f"pairs {gap}": _sweep(given, rates, steps, points=pairs(given.keys, gap)) for gap in OPENINGS}
    return _spacing_calls(given) | opened


def _factor(name: str, values: list, done: Done) -> Factor:
    return Factor(values, torch.stack([done[f"{name} {value}"].excess[-1, ..., 0] for value in values], 1))


def _theorem(given: Inputs, done: Done) -> Theorem:
    factors = {"n": COUNTS, "Delta": SPACINGS, "A": BOUNDS}
    return Theorem(
        bound=given.settings.bound,
        n_points=given.settings.n_points,
        rates=given.three,
        levels=SIGMAS,
        relative=done["sigma"].excess[-1].double(),
        factors={name: _factor(name, values, done) for name, values in factors.items()},
    )


def _gaps(given: Inputs, done: Done) -> Gaps:
    return Gaps(_factor("Delta", SPACINGS, done), _factor("pairs", OPENINGS, done))


# L3: the edge.


def _edge_calls(given: Inputs) -> Calls:
    settings = given.settings
    network = Network(edge.WIDTH, settings.start, settings.bound)
    runs = (given.points, given.keys)
    pushed = (*runs, given.levels[-1:], network, settings.edge_steps, settings.batch)
    calls: Calls = {"leaving": ("edge", edge.leaving, pushed)}
    for arm, batch in {"full batch": 0, "mini-batch": settings.batch}.items():
        calls[f"sharpness, {arm}"] = ("sharpening", edge.sharpening, (*runs, network, batch, settings.sharpness_at))
    return calls


def _edge(given: Inputs, done: Done) -> Edge:
    arms = ("full batch", "mini-batch")
    return Edge(
        rho=edge.RHO,
        rise={arm: rise.amax(0) for arm, rise in zip(arms, done["leaving"], strict=True)},
        rates=edge.RATES,
        steps=given.settings.sharpness_at,
        sharpness={arm: done[f"sharpness, {arm}"][0] for arm in arms},
        with_kinks={arm: done[f"sharpness, {arm}"][1] for arm in arms},
    )


# L4: higher dimension; and the relaxations, which decide nothing.


def _dimension_calls(given: Inputs) -> Calls:
    settings = given.settings
    few = given.levels[[0, settings.n_levels // 3, -2, -1]].to(given.points)
    arms = [(settings.start, 1e-5), (1.0, 1e-2)]  # initial weights times sigma^2, and the rate
    shared = (settings.n_runs, settings.n_points, given.first, arms, few, given.network)
    train = (3 * settings.steps // 8, settings.batch)
    return {f"d {d}": ("dimension", dimensions.in_dimension, (d, *shared, *train)) for d in settings.dims}


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


def _arms(settings: Settings) -> list[tuple[float, int]]:
    rates, sizes = settings.image_rates, settings.image_batches
    return sorted({(rate, digits.BATCH) for rate in rates} | {(rates[1], size) for size in sizes})


def _digits_calls(given: Inputs) -> Calls:
    settings, images = given.settings, given.images
    assert images is not None
    calls: Calls = {}
    bisection = (settings.image_steps, settings.image_sizes, settings.image_bracket)
    train = (settings.walk_images, 2 * settings.image_steps)
    for key in range(given.first, given.first + settings.n_models):
        for arm in _arms(settings):
            calls[f"EMM {arm} {key}"] = ("EMM", digits.largest_memorized, (images.members, *arm, key, *bisection))
        for way in product(settings.schedules, settings.image_rates):
            inputs = (images.members, images.held_out, *way, key, *train)
            calls[f"walk {way} {key}"] = ("walk", digits.walk, inputs)
    return calls


def _digits(given: Inputs, done: Done) -> Digits:
    settings, images = given.settings, given.images
    assert images is not None
    keys = range(given.first, given.first + settings.n_models)
    brackets = {arm: torch.stack([done[f"EMM {arm} {key}"] for key in keys]).double() for arm in _arms(settings)}
    ways = product(settings.schedules, settings.image_rates)
    walks = {way: torch.stack([done[f"walk {way} {key}"] for key in keys]) for way in ways}
    false = digits.copied(images.held_out, images.members)
    return Digits(
        rates=settings.image_rates,
        batch=digits.BATCH,
        smallest=settings.image_sizes[0],
        brackets=[Bracket(*arm, sizes) for arm, sizes in brackets.items()],
        walks=[Walk(rate, schedule, looks) for (schedule, rate), looks in walks.items()],
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
