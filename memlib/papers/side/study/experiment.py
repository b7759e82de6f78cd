"""The experiment as a whole: what is shared, and each group of measurements, alone or together.

A network is the unit: a deal of the images, a model trained on its members, thresholds set on its calibration images.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from memlib.adapters import Discrete
from memlib.papers.side.attack import Similarities
from memlib.papers.side.study import theory
from memlib.papers.side.study.arms import ARMS, COMPARED, Bench, Found, Recipe, attack
from memlib.papers.side.study.compare import compare_arms, measure_labels, measure_plain
from memlib.papers.side.study.judge import Judge, judge_of, measure_of
from memlib.papers.side.study.memorization import measure_model
from memlib.papers.side.study.model import plain_samples, synthetic_samples, target_of
from memlib.papers.side.study.results import Arms, Results, Weights
from memlib.papers.side.study.seconds import TIMED, measure_seconds
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.thresholds import held_out, measure_thresholds
from memlib.papers.side.study.training import Design, measure_training
from memlib.papers.side.study.world import World, coders, prepare
from memlib.run import Run

DEALS = 3000  # seed of the first deal of the images, and of the network trained on it
SWEPT = ("OL-TD", "OL-TD own", "CL-TD", "CL-TD own", "OL-TI")  # arms of the sweep; the first is the paper's and decides


@dataclass(frozen=True)
class Stage:
    """What all groups share about one network: the bench of the arms, the judge, what the unguided samples resemble,
    and the run whose seed is that of the deal and of the network."""

    bench: Bench
    judge: Judge
    plain: Similarities
    foreign: bool
    run: Run


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Measure the groups (all if empty). What is slow is cached by its own inputs, so a stopped run goes on.

    Raises Refused, before anything is trained, as `world.prepare`.
    """
    every = ("thresholds", "weights", "labels", "arms", "second", "theory", "model", "seconds", "training")
    wanted = set(groups or every)
    with in_dtype(settings):
        check_sources(settings, run)
        return _measured(settings, run, wanted, set_stages(settings, run))


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images or a model that this study cannot work with, as `run` would."""
    with in_dtype(settings):
        prepare(settings, runs_of(settings, run)[0])
        if settings.second:
            prepare(second_of(settings), runs_of(settings, run)[0])


def second_of(settings: Settings) -> Settings:
    """The settings of the attack on the second source: all else as for the first, without a sweep."""
    return dataclasses.replace(settings, data=settings.second, held_out="", model="", size=0, sweep=[])


@contextmanager
def in_dtype(settings: Settings) -> Iterator[None]:
    """Torch's default dtype as the settings say; float32 for a foreign model, whose weights are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if settings.model else getattr(torch, settings.dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def runs_of(settings: Settings, run: Run) -> list[Run]:
    """The run of each network, which differ in their seeds; one alone if the model comes from elsewhere."""
    count = 1 if settings.model else settings.networks
    return [dataclasses.replace(run, seed=run.seed + DEALS + number) for number in range(count)]


def set_stages(settings: Settings, run: Run) -> list[Stage]:
    """The stage of every network, the first with n_random unguided samples, the others with n_samples."""
    runs = runs_of(settings, run)
    run.each("network", ready, [(settings, one) for one in runs])  # trains and samples them side by side
    return [set_stage(*prepare(settings, one), settings, one, first=one == runs[0]) for one in runs]


def ready(settings: Settings, run: Run) -> int:
    """Fill the cache with one network and its samples; the seed, so that there is something to keep."""
    set_stage(*prepare(settings, run), settings, run)
    return run.seed


def set_stage(world: World, foreign: Discrete | None, settings: Settings, run: Run, first: bool = False) -> Stage:
    """Train or wrap the model and draw its unguided samples; n_random of them for the first network."""
    measure, decode = measure_of(settings), coders(world)[1]
    judge = judge_of(world, measure, run)  # before the training: it refuses what cannot be judged
    target = target_of(world, foreign, settings, run)
    shards = plain_samples(target, settings.n_random if first else settings.n_samples, 0, run)
    plain = judge.compare(decode(shard["images"].to(target.like)) for shard in shards)
    synthetic = synthetic_samples(target, settings.n_synthetic, run)
    scored = shards[: settings.n_samples]["images"].to(target.like)
    recipe = recipe_of(settings, foreign is not None, run.seed)
    return Stage(Bench(world, target, synthetic, scored, recipe, measure), judge, plain, foreign is not None, run)


def recipe_of(settings: Settings, foreign: bool, seed: int) -> Recipe:
    """How the settings make labels and classifiers; those of a U-Net are residual networks on images."""
    residual = foreign or settings.network == "unet"
    how = settings.clusters, settings.share, settings.student_steps, settings.student_lr
    return Recipe(*how, residual, seed)


def weight_of(arm: str, settings: Settings) -> float:
    """The weight at which an arm is compared."""
    return settings.own_weight if ARMS[arm].draw == "own" else settings.weight


def weights_of(arm: str, settings: Settings) -> list[float]:
    """The weights that an arm is drawn under: a sweep's, where there is one, and the one of the comparison."""
    at = weight_of(arm, settings)
    if settings.sweep and arm in SWEPT:
        return sorted({0.0, *settings.sweep, at})
    return [0.0, at] if arm == SWEPT[0] else [at]


def attacks(
    settings: Settings, stages: list[Stage], wanted: Sequence[Sequence[str]], run: Run
) -> list[dict[str, Found]]:
    """Attack each network with its wanted arms, all side by side; what is found by arm, for each network."""
    calls, places = [], []
    for number, (stage, arms) in enumerate(zip(stages, wanted, strict=True)):
        for arm in sorted(arms, key=lambda arm: arm not in SWEPT):  # the longest first
            at = weights_of(arm, settings), weight_of(arm, settings)
            calls.append((arm, stage.bench, *at, settings.n_samples, stage.run))
            places.append((number, arm))
    found: list[dict[str, Found]] = [{} for _ in stages]
    for (number, arm), one in zip(places, run.each("arms", attack, calls), strict=True):
        found[number][arm] = one
    return found


def compared(settings: Settings, stages: list[Stage], run: Run, controls: bool = True) -> tuple[Arms, list]:
    """`Arms` of all networks, and what every arm found in each."""
    arms = [tuple(ARMS) if controls else COMPARED, *[COMPARED] * (len(stages) - 1)]
    found = attacks(settings, stages, arms, run)
    every = [
        {"Random": measure_plain(stage.bench, stage.judge)} | {arm: one[arm] for arm in named}
        for stage, one, named in zip(stages, found, arms, strict=True)
    ]
    columns = {arm: weights_of(arm, settings).index(weight_of(arm, settings)) for arm in arms[0]}
    weights = {arm: weight_of(arm, settings) for arm in arms[0]}
    return compare_arms(settings.data, stages[0].bench.world, every, columns, weights), found


def _measured(settings: Settings, run: Run, wanted: set[str], stages: list[Stage]) -> Results:
    """The groups that are wanted, one after the other."""
    stage, measured = stages[0], {}
    bench, judge, own = stage.bench, stage.judge, stage.run
    if "thresholds" in wanted:
        held = [held_out(one.judge, one.plain) for one in stages]
        measured["thresholds"] = measure_thresholds(bench.world, judge, bench.measure, stage.plain, held, own)
    if "weights" in wanted:
        measured["weights"] = swept(settings, stages, run)
    if "labels" in wanted:
        measured["labels"] = measure_labels(bench, own)
    if "arms" in wanted:
        measured["arms"] = compared(settings, stages, run)[0]
    if "second" in wanted and settings.second:
        other = second_of(settings)
        measured["second"] = compared(other, set_stages(other, run), run, controls=False)[0]
    if "theory" in wanted:
        some = stages[: max(1, settings.theories)]
        calls = [(one.bench, settings.class_sizes, settings.n_samples, settings.weight, one.run) for one in some]
        found = run.each("theory", theory.of_network, calls)
        top = [one.judge.edges["high"] for one in some]
        plain = [int((one.plain.hits(e)[: settings.n_samples] >= 0).sum()) for one, e in zip(some, top, strict=True)]
        measured["theory"] = theory.measure_theory(
            [one.bench for one in stages], found, settings.n_samples, settings.weight, plain
        )
    if "model" in wanted:
        hits = stage.plain.hits(judge.edges["high"])
        measured["model"] = measure_model(bench.world, bench.target, judge, hits, stage.foreign, settings, own)
    if "seconds" in wanted:
        found = attacks(settings, [stage], [TIMED], run)[0]
        hits = {arm: one.hits[weights_of(arm, settings).index(weight_of(arm, settings))] for arm, one in found.items()}
        measured["seconds"] = measure_seconds(bench, judge, {arm: weight_of(arm, settings) for arm in TIMED}, hits, own)
    if "training" in wanted and settings.pairs:
        measured["training"] = measure_training(Design(), settings.half, settings.pairs, run)
    return Results(bench.world.description, **measured)


def swept(settings: Settings, stages: list[Stage], run: Run) -> Weights:
    """`Weights` of all networks. Without a sweep there are two weights, which show no rise and fall."""
    arms = SWEPT if settings.sweep else SWEPT[:1]
    found = attacks(settings, stages, [arms] * len(stages), run)
    n, arm = settings.n_samples, SWEPT[0]
    copies = [(one[arm].hits >= 0).double() for one in found]
    halves = [torch.stack([one[:, half::2].mean(1) for half in (0, 1)], 1) for one in copies]  # (W, 2)
    return Weights(
        arm=arm,
        weights=weights_of(arm, settings),
        n=n,
        copies=torch.stack(halves),
        tops=torch.stack([one[arm].tops for one in found]),
        near=torch.stack([one[arm].near for one in found]),
        of_arm={name: weights_of(name, settings) for name in arms},
        bands={name: torch.stack([one[name].bands[:, :, :2].double() / n for one in found]) for name in arms},
        non_members={name: torch.stack([one[name].non_members.double() / n for one in found]) for name in arms},
    )
