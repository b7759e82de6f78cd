"""What needs only the models of the main comparison: near and far (I8), and lemma 1 and theorem 1 (I9)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from memlib.papers.i2i import bound, methods, targets
from memlib.papers.i2i.evaluation import Judge, region, truth_separation
from memlib.papers.i2i.study.comparison import RELEASED, Family, judges_of, main_hole, main_judge, main_pair
from memlib.papers.i2i.study.judging import completed
from memlib.papers.i2i.study.models import Hole, Plan, centre, plan_for, varied
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.world import World
from memlib.run import Run

MOMENTS = (0, 10, 25, 50, 100, 200, 400)  # steps of unlearning at which theorem 1 is looked at, and the last one
GRID = (-12.0, 12.0, 48_001)  # from, to and points of the line on which lemma 1 is checked
PERPLEXITY = 20  # of t-SNE


# Near and far.


@dataclass(frozen=True)
class Distances:
    """How far completions lie from their truth, in features of the judge.

    original, unlearned (S,): probability that a forget completion lies farther from its truth than a retain completion
    from its own. maps: t-SNE of the first repetition, (N, 2), by the original and by the unlearned model; rows are
    retain completions, their truth, forget completions and their truth, `counts` of each.
    """

    original: Tensor
    unlearned: Tensor
    maps: dict[str, Tensor]
    counts: tuple[int, int, int, int]


def distances(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Distances:
    """I8, of the first family."""
    rows, maps, counts = [], {}, (0, 0, 0, 0)
    for world in worlds:
        plan, judges = plan_for(settings, settings.families[0], world), judges_of(settings)
        judge = main_judge(run, plan, world, judges)
        pair = main_pair(run, plan, world, judges, family.best[RELEASED])
        mask = centre(plan, settings.crops[0])
        sets = {name: _features(model, world, judge, mask) for name, model in pair._asdict().items()}
        rows.append([truth_separation(*four)[0] for four in sets.values()])
        if world.index == 0:
            maps = {name: run.cached("map", _map, torch.cat(four).cpu()) for name, four in sets.items()}
            a, b, c, d = sets["original"]
            counts = (len(a), len(b), len(c), len(d))
    original, unlearned = torch.tensor(rows).T
    return Distances(original, unlearned, maps, counts)


def _features(model: nn.Module, world: World, judge: Judge, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of completed and of true regions, (N, D) each: of retain images, then of forget images."""

    def both(truth: Tensor) -> tuple[Tensor, Tensor]:
        made = completed(model, truth, mask)
        return judge.resemble(region(made, mask)), judge.resemble(region(truth, mask))

    return (*both(world.of("R")), *both(world.of("F")))


def _map(features: Tensor) -> Tensor:
    """t-SNE of features (N, D) in the plane, (N, 2)."""
    from sklearn.manifold import TSNE  # slow to import, and worker processes do not need it

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    flat = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features.double().numpy())
    return torch.as_tensor(flat)


# Lemma 1 and theorem 1.


@dataclass(frozen=True)
class Theory:
    """Lemma 1 on the line, and theorem 1 along unlearning.

    laws: names; divergences (4, 4): KL(row || column), nats. steps: of the first repetition's unlearning; there `along`
    (steps, 2, 5) has the five numbers of `bound.Bound`, of retain and of forget images. ends (S, 2, 5): the same of
    forget images, by the original and by the unlearned model of every repetition.
    """

    laws: list[str]
    divergences: Tensor
    steps: list[int]
    along: Tensor
    ends: Tensor

    def lemma1(self) -> bool:
        """Whether the Gaussian is the farthest law from each, as lemma 1 says."""
        return all(name == "gaussian" for name in self.farthest().values())

    def to_gaussian(self, law: str) -> float:
        """The divergence from a law to the Gaussian, nats."""
        return float(self.divergences[self.laws.index(law), self.laws.index("gaussian")])

    def farthest(self) -> dict[str, str]:
        """The law that is farthest from each."""
        return {law: self.laws[int(row.argmax())] for law, row in zip(self.laws, self.divergences, strict=True)}


def theory(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Theory:
    """I9, of the first family."""
    weight, judges = family.best[RELEASED], judges_of(settings)
    plan, (laws, divergences) = plan_for(settings, settings.families[0], worlds[0]), lemma1()
    mask, hole = centre(plan, settings.crops[0]), main_hole(plan, judges)
    pairs = [main_pair(run, plan, world, judges, weight) for world in worlds]
    steps = sorted({*(k for k in MOMENTS if k < plan.unlearn_steps), plan.unlearn_steps})
    along = run.cached("path", _path, plan, worlds[0], pairs[0].original, hole, weight, steps)
    ends = [
        [_bound(model, pair.original, world, mask, "F", worlds[0].seed) for model in pair]
        for world, pair in zip(worlds, pairs, strict=True)
    ]
    return Theory(laws, divergences, steps, along, torch.tensor(ends, dtype=torch.float64))


def lemma1() -> tuple[list[str], Tensor]:
    """Names of four laws of mean 0 and variance 1 on the line, and their divergences (4, 4), nats."""
    x = torch.linspace(*GRID, dtype=torch.float64)
    laws = bound.matched(x)
    rows = [[bound.divergence(p, q, x) for q in laws.values()] for p in laws.values()]
    return list(laws), torch.tensor(rows, dtype=torch.float64)


def _path(
    plan: Plan,
    world: World,
    model: nn.Module,
    hole: Hole,
    weight: float,
    steps: Sequence[int],
) -> Tensor:
    """Theorem 1 at moments of one unlearning, (steps, 2, 5): on retain and on forget images."""
    frozen, mask = copy.deepcopy(model), hole(torch.Generator())
    retain, forget = world.of("R", "train"), world.of("F", "train")
    along = {0: _bounds(frozen, frozen, world, mask)}
    path = methods.unlearn(
        model,
        methods.li2024_released,
        retain,
        forget,
        hole,
        targets.gaussian(forget),
        vary=varied if plan.vary else None,
        alpha=weight,
        steps=plan.unlearn_steps,
        batch=plan.batch,
        lr=plan.unlearn_lr,
        seed=world.seed,
    )
    for current, step in path:
        if step.index + 1 in steps:
            along[step.index + 1] = _bounds(current.eval(), frozen, world, mask)
    return torch.tensor([along[k] for k in steps], dtype=torch.float64)


def _bounds(model: nn.Module, frozen: nn.Module, world: World, mask: Tensor) -> list[list[float]]:
    return [list(_bound(model, frozen, world, mask, group, world.seed)) for group in "RF"]


def _bound(model: nn.Module, frozen: nn.Module, world: World, mask: Tensor, group: str, seed: int) -> bound.Bound:
    """Theorem 1 between codes of test images and of their reference: themselves (R), or noise (F)."""
    images, generator = world.of(group), torch.Generator().manual_seed(seed)
    new, old = cast(methods.Completer, model), cast(methods.Completer, frozen)
    inputs = old.inputs(images, mask, generator)
    reference = inputs
    if group == "F":
        reference = old.with_noise(inputs, targets.gaussian(images)(len(images), generator).to(images))
    with torch.no_grad():
        codes = [methods.flatten_codes(net.encode(x)) for net, x in ((new, inputs), (old, reference))]
    return bound.theorem1(*codes)
