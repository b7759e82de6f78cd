"""The experiment as a whole: what is shared, and each group of measurements, alone or together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from memlib.adapters import Discrete
from memlib.cache import Shards
from memlib.papers.side.attack import Similarities
from memlib.papers.side.study.arms import ARMS, Bench, Found, Recipe, attack
from memlib.papers.side.study.compare import (
    attack_another,
    compare_arms,
    measure_labels,
    measure_plain,
    similarities_at,
)
from memlib.papers.side.study.judge import Judge, judge_of, measure_of
from memlib.papers.side.study.memorization import measure_model
from memlib.papers.side.study.model import (
    network_of,
    plain_samples,
    synthetic_samples,
    target_of,
    training_of,
)
from memlib.papers.side.study.results import Results, Weights
from memlib.papers.side.study.seconds import TIMED, measure_seconds
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.thresholds import measure_thresholds
from memlib.papers.side.study.training import Design, measure_training
from memlib.papers.side.study.world import World, coders, prepare
from memlib.run import Run


@dataclass(frozen=True)
class Stage:
    """What all groups share: the bench of the arms, the judge, the unguided samples on disk and what they resemble."""

    bench: Bench
    judge: Judge
    shards: Shards
    plain: Similarities
    foreign: bool


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Measure the groups (all if empty). What is slow is cached by its own inputs, so a stopped run goes on.

    Raises Refused, before anything is trained, as `world.prepare`.
    """
    every = ("thresholds", "weights", "labels", "arms", "model", "seconds", "training")
    wanted = set(groups or every)
    with in_dtype(settings):
        world, foreign = prepare(settings, run)
        stage = set_stage(world, foreign, settings, run)
        return _measured(settings, run, wanted, stage)


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images or a model that this study cannot work with, as `run` would."""
    with in_dtype(settings):
        prepare(settings, run)


@contextmanager
def in_dtype(settings: Settings) -> Iterator[None]:
    """Torch's default dtype as the settings say; float32 for a foreign model, whose weights are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if settings.model else getattr(torch, settings.dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def set_stage(world: World, foreign: Discrete | None, settings: Settings, run: Run) -> Stage:
    """Train or wrap the model and draw its unguided samples."""
    measure, decode = measure_of(settings), coders(world)[1]
    judge = judge_of(world, measure, run)  # before the training: it refuses what cannot be judged
    target = target_of(world, foreign, settings, run)
    shards = plain_samples(target, settings.n_random, 0, run)
    plain = judge.compare(decode(shard["images"].to(target.like)) for shard in shards)
    synthetic = synthetic_samples(target, settings.n_synthetic, run)
    bench = Bench(world, target, synthetic, recipe_of(settings, foreign is not None, run.seed), measure)
    return Stage(bench, judge, shards, plain, foreign is not None)


def recipe_of(settings: Settings, foreign: bool, seed: int) -> Recipe:
    """How the settings make labels and classifiers; those of a U-Net are residual networks on images."""
    residual = foreign or settings.network == "unet"
    return Recipe(settings.clusters, settings.cohesion, settings.student_steps, residual, seed)


def weights_of(settings: Settings) -> list[float]:
    """The weights of the sweep: 0, those of the settings, and the one of the comparison."""
    return sorted({0.0, *settings.sweep, settings.weight})


def attacks(arms: Sequence[str], settings: Settings, bench: Bench, run: Run) -> dict[str, Found]:
    """Attack with some arms: the swept one under all weights, the others under that of the comparison."""
    # The swept arm first: it is the longest, and two processes then end at about the same time.
    order = sorted(arms, key=lambda arm: arm != settings.swept)
    weights = {arm: weights_of(settings) if arm == settings.swept else [settings.weight] for arm in order}
    calls = [(arm, bench, weights[arm], settings.weight, settings.n_samples, run) for arm in order]
    return dict(zip(order, run.each("arms", attack, calls), strict=True))


def _measured(settings: Settings, run: Run, wanted: set[str], stage: Stage) -> Results:
    """The groups that are wanted, one after the other."""
    bench, judge, measured = stage.bench, stage.judge, {}
    world, top, n = bench.world, judge.edges["high"], settings.n_samples
    needed = {settings.swept} if "weights" in wanted else set()
    needed |= set(ARMS) if "arms" in wanted else set(TIMED) if "seconds" in wanted else set()
    found = attacks([arm for arm in ARMS if arm in needed], settings, bench, run) if needed else {}
    columns = {arm: weights_of(settings).index(settings.weight) if arm == settings.swept else 0 for arm in found}
    copied = {"Random": stage.plain.hits(top).cpu().int()}
    copied |= {arm: similarities_at(one, columns[arm]).hits(top).int() for arm, one in found.items()}
    if "thresholds" in wanted:
        measured["thresholds"] = measure_thresholds(world, judge, bench.measure, stage.plain, run)
    if "weights" in wanted:
        one = found[settings.swept]
        parts = (one.similarity, one.nearest.int(), one.to_non_members)
        measured["weights"] = Weights(settings.swept, weights_of(settings), top, *parts)
    if "labels" in wanted:
        measured["labels"] = measure_labels(bench, run)
    if "arms" in wanted:
        first = Similarities(*(values[:n] for values in stage.plain))
        random = measure_plain(stage.shards, first, bench.target, judge, world)
        others = other_networks(settings, stage, run)
        measured["arms"] = compare_arms(world, random, found, columns, settings.weight, judge, others)
    if "model" in wanted:
        measured["model"] = measure_model(world, bench.target, judge, copied["Random"], stage.foreign, settings, run)
    if "seconds" in wanted:
        measured["seconds"] = measure_seconds(
            bench, settings.weight, {arm: copied[arm] for arm in ("Random", *TIMED)}, run
        )
    if "training" in wanted and settings.pairs:
        measured["training"] = measure_training(Design(), settings.half, settings.pairs, run)
    return Results(world.description, **measured)


def other_networks(settings: Settings, stage: Stage, run: Run) -> list[dict]:
    """The same attack on further networks; on none if the model comes from elsewhere."""
    if stage.foreign or settings.networks < 2:
        return []
    world, sizes = stage.bench.world, {"n_samples": settings.n_samples, "n_synthetic": settings.n_synthetic}
    network, how, measure = network_of(world, settings), training_of(settings), stage.bench.measure
    calls = []
    for number in range(run.seed + 1001, run.seed + 1000 + settings.networks):
        recipe = recipe_of(settings, False, number)
        calls.append((number, world, network, how, recipe, measure, sizes, settings.weight, run))
    return run.each("networks", attack_another, calls)
