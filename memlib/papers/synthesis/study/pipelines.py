"""The calls of the study: each trains or measures a few pipelines, and is cached by its own inputs.

Pipelines are handled four pairs at a time, so that two processes share the work and bits do not depend on how many
there are. A call that needs generators asks for them; the first one trains them, the others wait and read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memlib import nets
from memlib.cache._fingerprint import code_fingerprint
from memlib.papers.synthesis import attacks, classifiers, copies, generators
from memlib.papers.synthesis.attacks import Statistic
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.copies import Copies
from memlib.papers.synthesis.pool import PLAIN
from memlib.papers.synthesis.study.world import World, coders, descriptor
from memlib.papers.synthesis.synthetic import Published, publish
from memlib.run import Run

SHOWN = 8  # published images of the first pipeline that are kept as pictures


@dataclass(frozen=True)
class Part:
    """Some pipelines of a world: the rows of `pool.inside`, and how their generators are made and sampled."""

    world: World
    rows: tuple[int, ...]
    network: generators.Network
    how: generators.Training
    guidance: float
    steps: int
    seed: int

    @property
    def inside(self) -> Tensor:
        """(E, N)."""
        return self.world.pool.inside[list(self.rows)]


@dataclass(frozen=True)
class Classified:
    """What classifiers of E pipelines say: margins of the pool (E, N), and the test images named rightly (E, M)."""

    margins: Tensor
    right: Tensor


@dataclass(frozen=True)
class Pictures:
    """Published images of the first pipeline, and the most similar member and ghost of each, (K, C, H, W) each."""

    published: Tensor
    member: Tensor
    ghost: Tensor
    cosines: Tensor  # (K, 2): to the member, to the ghost


@dataclass(frozen=True)
class Synthetic:
    """One kind of synthetic set of E pipelines: its classifiers by size, and what the published images give away."""

    classified: dict[int, Classified]
    agreement: Tensor  # (E, 2) fraction whose label an oracle confirms: of the published images, of plain real ones
    nearest: Statistic
    copies: Copies
    pictures: Pictures | None


def repeated(part: Part, times: int) -> Part:
    """The first pipeline, `times` over: other weights, batches and noise, the same members."""
    return replace(part, rows=(0,) * times)


def stack_of(part: Part, run: Run) -> nets.Stack:
    """The generators of a part, trained once and then read."""
    state = run.cached("generators", _trained, part, run)
    with torch.random.fork_rng(devices=[]):
        stack = generators.build(part.network, len(part.rows))
    stack.load_state_dict(state)
    return stack.to(part.world.pool.images).eval().requires_grad_(False)


def _trained(part: Part, run: Run) -> dict[str, Tensor]:
    torch.manual_seed(part.seed * 1_000 + part.rows[0])
    stack = generators.build(part.network, len(part.rows)).to(part.world.pool.images)
    folder = run.folder("generators", code_fingerprint(__name__), part)
    seed = part.seed * 1_000 + part.rows[-1]
    average = generators.fit(stack, part.world.pool, part.inside, part.how, seed, str(folder))
    return dict(average.state_dict())


def real(part: Part, recipes: dict[str, Recipe], run: Run) -> dict[str, list[Classified]]:
    """Classifiers trained on the members themselves, by recipe, one for each look."""
    pool = part.world.pool
    members = part.inside.nonzero()[:, 1].reshape(len(part.rows), -1)
    images, labels, weights = pool.images[members], pool.labels[members], pool.copies[members]
    return {name: _classified(part, images, labels, weights, recipe) for name, recipe in recipes.items()}


def synthetic(
    part: Part, strength: float, sizes: Sequence[int], recipe: Recipe, judge: Recipe, pictures: bool, run: Run
) -> Synthetic:
    """Publish sets that start at this strength, train classifiers on them, and look at what the sets give away."""
    made = _published(part, strength, max(sizes), run)
    found, size = {}, int(part.inside[0].sum())
    for times in sorted(sizes):
        images, labels = made.images[:, : times * size], made.labels[:, : times * size]
        weights = torch.ones(labels.shape, device=labels.device)
        (found[times],) = _classified(part, images, labels, weights, recipe)
    once = Published(*(one[:, :size] for one in made))
    world = part.world
    held_out, embed = world.test, descriptor(world)
    return Synthetic(
        classified=found,
        agreement=_agreement(part, once, judge),
        nearest=attacks.of_published(once, world.pool),
        copies=copies.find(once, world.pool.images, part.inside, held_out, embed, seed=part.seed),
        pictures=_pictures(part, once) if pictures else None,
    )


def answers(part: Part, strengths: Sequence[float], asked: int, draws: int, run: Run) -> list[Statistic]:
    """What an attacker learns who may ask the generator: for fresh images of a label, and to remake an image."""
    stack, pool = stack_of(part, run), part.world.pool
    fresh = publish(stack, pool, part.inside, guidance=part.guidance, times=asked, steps=part.steps, seed=part.seed + 1)
    drawn = replace(attacks.of_published(fresh, pool, "nearest image asked for"), threat="C")
    return [drawn, attacks.of_answers(stack, pool, strengths, part.guidance, draws)]


def weights(part: Part, levels: Sequence[float], draws: int, run: Run) -> list[Statistic]:
    """Statistics that take the weights of the generator."""
    stack, pool = stack_of(part, run), part.world.pool
    return [*attacks.of_weights(stack, pool, levels, draws), attacks.of_gradients(stack, pool, levels[1::2])]


def moved(part: Part, level: float, draws: int, run: Run) -> list[Statistic]:
    """The raw loss of the pool's images, and of the same images moved by a pixel, with the same noises."""
    stack, pool = stack_of(part, run), part.world.pool
    shifted = replace(pool, images=moved_images(part.world))
    return [attacks.of_weights(stack, one, (level,), draws)[0] for one in (pool, shifted)]


def moved_images(world: World) -> Tensor:
    """The pool in coordinates (N, *S), every image moved to the right by a pixel, its edge repeated."""
    encode, decode = coders(world)
    images = decode(world.pool.images)
    return encode(torch.cat([images[..., :1], images[..., :-1]], -1))


def _published(part: Part, strength: float, times: int, run: Run) -> Published:
    return publish(
        stack_of(part, run),
        part.world.pool,
        part.inside,
        strength=strength,
        guidance=part.guidance,
        times=times,
        steps=part.steps,
        seed=part.seed,
    )


def _classified(part: Part, images: Tensor, labels: Tensor, weight: Tensor, recipe: Recipe) -> list[Classified]:
    """Classifiers of a part trained on images (E, M, *S), one for each look of the recipe."""
    world, spread = part.world, part.network.spread
    seed = part.seed * 1_000 + part.rows[-1]
    found = []
    for stack in classifiers.fit(images, labels, weight, world.pool.classes, spread, recipe, seed):
        right = classifiers.logits(stack, world.test).argmax(-1) == world.test_labels
        found.append(Classified(attacks.of_classifier(stack, world.pool).values[0].cpu(), right.cpu()))
    return found


def _agreement(part: Part, published: Published, judge: Recipe) -> Tensor:
    """How often an oracle confirms the label that was asked for, and that of plain real images, (E, 2).

    The oracle is a classifier of the test images, which no pipeline saw. Appendix H.1 of the paper.
    """
    world = part.world
    images, labels = world.test[None], world.test_labels[None]
    weight = torch.ones(labels.shape, device=labels.device)
    (stack,) = classifiers.fit(images, labels, weight, world.pool.classes, part.network.spread, judge, part.seed)
    named = classifiers.logits(stack, published.images.flatten(0, 1))[0].argmax(-1)
    asked = (named.unflatten(0, published.labels.shape) == published.labels).double().mean(1)
    plain = world.pool.kind == PLAIN
    alike = classifiers.logits(stack, world.pool.images[plain])[0].argmax(-1) == world.pool.labels[plain]
    return torch.stack([asked, alike.double().mean().expand_as(asked)], 1).cpu()


def _pictures(part: Part, published: Published) -> Pictures:
    world = part.world
    (_, decode), embed = coders(world), descriptor(world)
    made, seen = published.images[0, :SHOWN], part.inside[0]
    nearest = []
    for side in (seen, ~seen):
        cosine, index = copies.look_up(made, world.pool.images[side], embed, 1)
        nearest.append((decode(world.pool.images[side][index[:, 0]]).clamp(-1, 1).cpu(), cosine[:, 0].cpu()))
    (member, to_member), (ghost, to_ghost) = nearest
    return Pictures(decode(made).clamp(-1, 1).cpu(), member, ghost, torch.stack([to_member, to_ghost], 1))


def joined(parts: Sequence[Classified]) -> Classified:
    """Pipelines of several parts as one, along E."""
    return Classified(*(torch.cat([getattr(one, name) for one in parts]) for name in ("margins", "right")))


def together(parts: Sequence[Statistic]) -> Statistic:
    """The same statistic of several parts as one, along T."""
    return replace(parts[0], values=torch.cat([one.values for one in parts], 1).cpu())


def copies_of(parts: Sequence[Copies]) -> Copies:
    """`Copies` of several parts as one, along E."""
    return Copies(*(torch.cat(column) for column in zip(*parts, strict=True)))


__all__ = [
    "Classified",
    "Part",
    "Pictures",
    "Synthetic",
    "answers",
    "copies_of",
    "joined",
    "moved",
    "moved_images",
    "real",
    "repeated",
    "stack_of",
    "synthetic",
    "together",
    "weights",
]
