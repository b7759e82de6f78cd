"""The experiment as a whole: what is shared, and each group of measurements, alone or together.

A network is the unit: a deal of the images, a model trained on its members, thresholds set on its calibration images.
"""

import dataclasses
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from memlib.adapters import Discrete
from memlib.papers.side.attack import Similarities
from memlib.papers.side.study import theory
from memlib.papers.side.study.arms import ARMS, COMPARED, Bench, Found, Recipe, attack, beside
from memlib.papers.side.study.compare import compare_arms, measure_labels, measure_plain
from memlib.papers.side.study.judge import Judge, judge_of, measure_of
from memlib.papers.side.study.memorization import copies_along, measure_model
from memlib.papers.side.study.model import network_of, plain_samples, synthetic_samples, target_of, training_of
from memlib.papers.side.study.results import Arms, Results, Theory, Weights
from memlib.papers.side.study.seconds import TIMED, measure_seconds
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.thresholds import held_out, measure_thresholds, planted_copies
from memlib.papers.side.study.training import Design, measure_training
from memlib.papers.side.study.world import World, coders, dealt, prepare, read
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
        if settings.second:  # else the first source is checked as it is read
            check_sources(settings, run)
        return _measured(settings, run, wanted, set_stages(settings, run, wanted))


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


def set_stages(settings: Settings, run: Run, wanted: Container[str] = (), controls: bool = True) -> list[Stage]:
    """The stage of every network, the first with n_random unguided samples, the others with n_samples.

    Networks are trained side by side, and what the wanted groups need of one is cached while the next one trains.
    """
    runs = runs_of(settings, run)
    sources = read(settings, runs[0])
    calls = [(dealt(sources, settings, one), sources.foreign, settings, one) for one in runs]
    stages: dict[int, Stage] = {}

    def then(number: int) -> list[tuple]:
        stages[number] = set_stage(*calls[number], first=number == 0)
        return following(settings, stages[number], number, wanted, controls)

    run.cascade([("network", ready, one) for one in calls], then)
    return [stages[number] for number in range(len(calls))]


def following(settings: Settings, stage: Stage, number: int, wanted: Container[str], controls: bool) -> list[tuple]:
    """The calls that the wanted groups need of a network, which are independent of one another."""
    bench, own, calls = stage.bench, stage.run, []
    if "arms" in wanted or "weights" in wanted:
        calls.append(("plain", measure_plain, (bench, own)))
    if "arms" in wanted:
        named = attack_calls(settings, stage, arms_of(number, controls))
        calls += [("arms", attack, one) for one in named.values()]
    if "theory" in wanted and number < max(1, settings.theories):
        calls += [("theory", theory.of_labelling, one) for one in theory_calls(settings, stage).values()]
    if "labels" in wanted and number == 0:
        calls.append(("labels", measure_labels, (bench, own)))
    if "thresholds" in wanted and number == 0:
        calls.append(("planted", planted_copies, (bench.world, bench.measure, own)))
    if "model" in wanted and number == 0 and not stage.foreign:
        calls.append(("along", copies_along, along_of(settings, stage)))
    return calls


def along_of(settings: Settings, stage: Stage) -> tuple:
    """The arguments of `memorization.copies_along`."""
    return stage.bench, network_of(stage.bench.world, settings), training_of(settings), stage.run


def ready(world: World, foreign: Discrete | None, settings: Settings, run: Run) -> int:
    """Fill the cache with one network and its samples; the seed, so that there is something to keep."""
    set_stage(world, foreign, settings, run)
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
    return [at]


def attacks(
    settings: Settings, stages: list[Stage], wanted: Sequence[Sequence[str]], run: Run
) -> list[dict[str, Found]]:
    """Attack each network with its wanted arms, all side by side; what is found by arm, for each network."""
    calls = {
        (number, arm): one
        for number, (stage, arms) in enumerate(zip(stages, wanted, strict=True))
        for arm, one in attack_calls(settings, stage, arms).items()
    }
    found: list[dict[str, Found]] = [{} for _ in stages]
    for (number, arm), one in zip(calls, run.each("arms", attack, calls.values()), strict=True):
        found[number][arm] = one
    return found


def attack_calls(settings: Settings, stage: Stage, arms: Sequence[str]) -> dict[str, tuple]:
    """The arguments of `attack` by arm, the longest first; of these, one of each surrogate before the next of any, so
    that two processes do not wait for one student."""
    return {
        arm: (arm, stage.bench, weights_of(arm, settings), weight_of(arm, settings), settings.n_samples, stage.run)
        for arm in sorted(arms, key=lambda arm: (arm not in SWEPT, turn_of(arm)))
    }


def turn_of(arm: str) -> int:
    """How many arms of the same surrogate stand before an arm."""
    return [name for name, one in ARMS.items() if one.surrogate == ARMS[arm].surrogate].index(arm)


def arms_of(number: int, controls: bool = True) -> tuple[str, ...]:
    """The arms that a network is attacked with: every arm for the first one, if the controls are wanted."""
    return tuple(ARMS) if controls and number == 0 else COMPARED


def theory_calls(settings: Settings, stage: Stage) -> dict[str, tuple]:
    """The arguments of `theory.of_labelling` by labelling."""
    fixed = settings.n_samples, settings.weight, stage.run
    named = theory.labellings(stage.bench, settings.class_sizes)
    return {name: (stage.bench, labels, *fixed) for name, labels in named.items()}


def compared(settings: Settings, stages: list[Stage], run: Run, controls: bool = True) -> tuple[Arms, list]:
    """`Arms` of all networks, and what every arm found in each."""
    arms = [arms_of(number, controls) for number in range(len(stages))]
    found = attacks(settings, stages, arms, run)
    every = [
        {"Random": plain} | {arm: one[arm] for arm in named}
        for plain, one, named in zip(plain_of(stages, run), found, arms, strict=True)
    ]
    columns = {arm: weights_of(arm, settings).index(weight_of(arm, settings)) for arm in arms[0]}
    weights = {arm: weight_of(arm, settings) for arm in arms[0]}
    return compare_arms(settings.data, stages[0].bench.world, every, columns, weights), found


def plain_of(stages: list[Stage], run: Run) -> list[Found]:
    """What the unguided samples of each network resemble."""
    return run.each("plain", measure_plain, [(stage.bench, stage.run) for stage in stages])


def _measured(settings: Settings, run: Run, wanted: set[str], stages: list[Stage]) -> Results:
    """The groups that are wanted, one after the other."""
    stage, measured = stages[0], {}
    bench, judge, own = stage.bench, stage.judge, stage.run
    if "thresholds" in wanted:
        held = [held_out(one.judge, one.plain) for one in stages]
        planted = run.cached("planted", planted_copies, bench.world, bench.measure, own)
        measured["thresholds"] = measure_thresholds(bench.world, judge, bench.measure, stage.plain, held, planted)
    if "weights" in wanted:
        measured["weights"] = swept(settings, stages, run)
    if "labels" in wanted:
        measured["labels"] = run.cached("labels", measure_labels, bench, own)
    if "arms" in wanted:
        measured["arms"] = compared(settings, stages, run)[0]
    if "second" in wanted and settings.second:
        other = second_of(settings)
        others = set_stages(other, run, ("arms", "theory"), controls=False)
        measured["second"] = compared(other, others, run, controls=False)[0]
        measured["second_theory"] = theory_of(other, others, run)
    if "theory" in wanted:
        measured["theory"] = theory_of(settings, stages, run)
    if "model" in wanted:
        hits = stage.plain.hits(judge.edges["high"])
        along = None if stage.foreign else run.cached("along", copies_along, *along_of(settings, stage))
        measured["model"] = measure_model(bench.world, bench.target, judge, hits, along, settings, own)
    if "seconds" in wanted:
        found = attacks(settings, [stage], [TIMED], run)[0]
        hits = {arm: one.hits[weights_of(arm, settings).index(weight_of(arm, settings))] for arm, one in found.items()}
        weights, known = {arm: weight_of(arm, settings) for arm in TIMED}, stage.plain.hits(judge.edges["high"])
        measured["seconds"] = measure_seconds(bench, judge, weights, hits, known, own)
    if "training" in wanted and settings.pairs:
        measured["training"] = measure_training(Design(), settings.half, settings.pairs, run)
    return Results(bench.world.description, **measured)


def theory_of(settings: Settings, stages: list[Stage], run: Run) -> Theory:
    """`Theory` of the networks that the settings want it on."""
    some, n = stages[: max(1, settings.theories)], settings.n_samples
    calls = {(i, name): one for i, stage in enumerate(some) for name, one in theory_calls(settings, stage).items()}
    found: list[dict[str, tuple]] = [{} for _ in some]
    for (number, name), one in zip(calls, run.each("theory", theory.of_labelling, calls.values()), strict=True):
        found[number][name] = one
    plain = [int((one.plain.hits(one.judge.edges["high"])[:n] >= 0).sum()) for one in some]
    benches = [one.bench for one in stages]
    return theory.measure_theory(benches, found, n, settings.weight, plain)


def swept(settings: Settings, stages: list[Stage], run: Run) -> Weights:
    """`Weights` of all networks. Without a sweep there are two weights, which show no rise and fall."""
    arms = SWEPT if settings.sweep else SWEPT[:1]
    found = attacks(settings, stages, [arms] * len(stages), run)
    n, arm = settings.n_samples, SWEPT[0]
    weights = {name: weights_of(name, settings) for name in arms}
    if not settings.sweep:  # weight 0 is no guidance, and such samples are there
        weights[arm] = [0.0, *weights[arm]]
        found = [{arm: beside(plain, one[arm])} for plain, one in zip(plain_of(stages, run), found, strict=True)]
    copies = [(one[arm].hits >= 0).double() for one in found]
    halves = [torch.stack([one[:, half::2].mean(1) for half in (0, 1)], 1) for one in copies]  # (W, 2)
    return Weights(
        arm=arm,
        weights=weights[arm],
        n=n,
        copies=torch.stack(halves),
        tops=torch.stack([one[arm].tops for one in found]),
        near=torch.stack([one[arm].near for one in found]),
        of_arm=weights,
        bands={name: torch.stack([one[name].bands[:, :, :2].double() / n for one in found]) for name in arms},
        non_members={name: torch.stack([one[name].non_members.double() / n for one in found]) for name in arms},
    )
