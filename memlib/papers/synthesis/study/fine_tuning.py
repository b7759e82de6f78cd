"""R2: eight generators fine-tuned with and without the matching term, in two regimes, from the same bases.

"whole network, same domain": every weight, from a base of other images of the same kind, where the mean residual is
small. "adapters, other domain", the paper's: few steps of low-rank adapters on a frozen base of thickened and
blurred images, where it is not.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memlib import membership, metrics, nets
from memlib.features.alterations import blurred
from memlib.papers.synthesis import classifiers, generators, matching
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.generators import Network, Training
from memlib.papers.synthesis.matching import Term
from memlib.papers.synthesis.pool import PLAIN, Canaries, Pool, deal
from memlib.papers.synthesis.study.world import World, coders
from memlib.papers.synthesis.synthetic import publish
from memlib.random import keyed
from memlib.run import Run

SAME, OTHER = "whole network, same domain", "adapters, other domain"
NONE, STATED = "none", "printed 0.05"  # the arms that the rule compares: without the term, and with the paper's weight
_WIDTHS = (0.5, 1.0, 2.0)  # of the Gaussian kernels, times the median distance of real images
_BLUR = 0.6  # deviation of the other domain's blur in pixels of an image of 8


@dataclass(frozen=True)
class Tuning:
    """How bases are trained and tuned: `rank` is that of the adapters, `few` their steps. `levels` in the spread."""

    network: Network
    base: Training
    whole: Training
    adapters: Training
    rank: int
    gammas: tuple[float, ...]
    levels: tuple[float, ...]
    draws: int
    sampling: int
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """Images beside held-out real ones, for E networks: squared MMD and Frechet distance (E,), of coordinates; and the
    test images (E, M) named rightly by a classifier trained on them."""

    mmd2: Tensor
    frechet: Tensor
    right: Tensor


@dataclass(frozen=True)
class Regime:
    """One regime: outcomes by arm, `before` tuning and of a real sample of equal size among them.

    `start` and `end` are (L, E, 2), `matching.residual_energy` at `levels`, before and after tuning without the term.
    """

    arms: dict[str, Outcome]
    before: Outcome
    floor: Outcome
    levels: tuple[float, ...]
    start: Tensor
    end: Tensor


def without_canaries(world: World, seed: int) -> Pool:
    """The plain images of a world's pool, dealt anew to as many pipelines: right labels, no repetition."""
    pool = world.pool
    plain = (pool.kind == PLAIN).nonzero()[:, 0]
    plain = plain[: len(plain) // 2 * 2]
    return deal(pool.images[plain], pool.labels[plain], pool.classes, pool.pipelines // 2, Canaries(0, 0, 1), seed)


def terms(gammas: tuple[float, ...]) -> dict[str, Term]:
    """The arms by name: no term; printed and unbiased at each gamma; as released; ours at the least and the largest."""
    found = {NONE: Term("printed", 0.0)}
    gammas = tuple(sorted({0.05, *gammas}))  # the paper's weight is among them: the rule reads it
    for form in ("printed", "unbiased"):
        found |= {f"{form} {gamma:g}": Term(form, gamma) for gamma in gammas}
    found["released"] = matching.RELEASED
    return found | {f"by class and level {g:g}": Term("by class and level", g) for g in (gammas[0], gammas[-1])}


def measured(world: World, name: str, tuning: Tuning, seed: int, run: Run) -> Regime:
    """One regime: E bases trained on half of the images, each tuned on the other half once for every arm.

    Arms share bases, batches and noise. A network's two halves are complements, so the floor is the half that its
    fine-tuning did not see.
    """
    pool = without_canaries(world, seed)
    members, others = pool.inside[::2], pool.inside[1::2]
    before = pool if name == SAME else replace(pool, images=_altered(world, pool.images))
    base = run.cached("bases", _base, before, others, tuning, seed)
    stack = _stack(tuning, len(members), base)
    start = stack if name == SAME else matching.with_adapters(stack, tuning.rank, seed)
    how = tuning.whole if name == SAME else tuning.adapters
    arms, energies = {}, {}
    for arm, term in terms(tuning.gammas).items():
        tuned = matching.fine_tune(matching.copied(start), pool, members, how, term, seed)
        arms[arm] = _published(world, pool, members, tuned, tuning, seed)
        if arm == NONE:
            energies["end"] = _energy(tuned, pool, members, tuning, seed)
    energies["start"] = _energy(stack, pool, members, tuning, seed)
    plain = others.nonzero()[:, 1].reshape(len(others), -1)
    floor = _outcome(world, pool.images[plain], pool.labels[plain], tuning, seed)
    untuned = _published(world, pool, members, stack, tuning, seed)
    return Regime(arms, untuned, floor, tuning.levels, energies["start"], energies["end"])


def crossed(values: Tensor) -> tuple[float, float]:
    """Interval of the mean of (E, M) cells in [-1, 1], for new networks and new test images at once."""
    both = values.double().repeat_interleave(2, 0)  # a network counts as the pair that `crossed_interval` expects
    return membership.crossed_interval(both, torch.ones_like(both, dtype=torch.bool), bounds=(-1, 1))


def _altered(world: World, images: Tensor) -> Tensor:
    encode, decode = coders(world)
    shown = torch.nn.functional.max_pool2d(decode(images).clamp(-1, 1), 3, 1, 1)
    width = _BLUR * (min(shown.shape[2:]) / 8) ** 0.5
    return encode(blurred(shown, torch.full((len(shown),), width)))


def _base(pool: Pool, inside: Tensor, tuning: Tuning, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    stack = generators.build(tuning.network, len(inside)).to(pool.images)
    return dict(generators.fit(stack, pool, inside, tuning.base, seed).state_dict())


def _stack(tuning: Tuning, count: int, state: dict[str, Tensor]) -> nets.Stack:
    with torch.random.fork_rng(devices=[]):
        stack = generators.build(tuning.network, count)
    stack.load_state_dict(state)
    return stack.to(next(iter(state.values()))).eval().requires_grad_(False)


def _energy(stack: nets.Stack, pool: Pool, members: Tensor, tuning: Tuning, seed: int) -> Tensor:
    return matching.residual_energy(stack, pool, members, tuning.levels, tuning.draws, seed)


def _published(world: World, pool: Pool, members: Tensor, stack: nets.Stack, tuning: Tuning, seed: int) -> Outcome:
    """From noise and without guidance: what is asked is the law of the generator itself."""
    made = publish(stack, pool, members, steps=tuning.sampling, seed=seed)
    return _outcome(world, made.images, made.labels, tuning, seed)


def _outcome(world: World, images: Tensor, labels: Tensor, tuning: Tuning, seed: int) -> Outcome:
    real = world.test.flatten(1)
    median = metrics.median_distance(real, real, generator=keyed(seed, 1))
    widths = [median * width for width in _WIDTHS]
    rows = images.flatten(2)
    alike = torch.ones(labels.shape, device=labels.device)
    (judges,) = classifiers.fit(images, labels, alike, world.pool.classes, tuning.network.spread, tuning.recipe, seed)
    return Outcome(
        torch.tensor([metrics.mmd2(made, real, widths) for made in rows], dtype=torch.float64),
        torch.tensor([metrics.frechet_distance(made, real) for made in rows], dtype=torch.float64),
        (classifiers.logits(judges, world.test).argmax(-1) == world.test_labels).cpu(),
    )
