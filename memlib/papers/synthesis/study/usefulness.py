"""R11 and R12: classifiers of real and synthetic data, alone and together, on test images as they are and changed.

All are trained for equal steps. Canaries are left out of every set, so each has right labels and no repetition; the
generators saw them. The controls are real data: moved a little at random (augmentation), all images of the pool (twice
as many: the ceiling), noisy ones, and ones that are as smooth or as rough as the synthetic ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memlib import random
from memlib.features.alterations import blurred, moved
from memlib.papers.synthesis import classifiers
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.pool import PLAIN
from memlib.papers.synthesis.study.pipelines import Part, stack_of
from memlib.papers.synthesis.study.world import World, coders
from memlib.papers.synthesis.synthetic import Published, publish
from memlib.random import keyed
from memlib.run import Run

REAL, SYNTHETIC, BOTH = "real", "synthetic", "both"
AUGMENTED, TWICE, NOISY, MATCHED = "real, augmented", "twice the real data", "real, noisy", "real, as smooth"
PLAINLY = "unchanged"
SHIFTS = ("rotation", "shift", "noise", "blur", "thickness")
_VIEWS = 10  # augmented versions of each image
_WIDTHS = torch.linspace(0, 2, 41)  # deviations of blur in pixels, of which one makes real images as smooth


@dataclass(frozen=True)
class Utility:
    """Test images named rightly, (T, M) bools, by arm and by how they were changed; `matched` says how real images were
    made as smooth or as rough as the synthetic ones: the deviation of the blur in pixels, and of the noise."""

    right: dict[str, dict[str, Tensor]]
    matched: tuple[float, float]


def measured(part: Part, strength: float, recipe: Recipe, seed: int, run: Run) -> Utility:
    """Train the classifiers of a part's pipelines, and ask them."""
    pool, world = part.world.pool, part.world
    stack = stack_of(part, run)
    made = publish(
        stack, pool, part.inside, strength=strength, guidance=part.guidance, steps=part.steps, seed=part.seed
    )
    members = part.inside.nonzero()[:, 1].reshape(len(part.rows), -1)
    images, labels, plain = pool.images[members], pool.labels[members], (pool.kind[members] == PLAIN).float()
    count = len(part.rows)
    every = (pool.images, pool.labels, (pool.kind == PLAIN).float())
    like, width, noise = _as_smooth(world, images, made, plain)
    sets: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        REAL: (images, labels, plain),
        SYNTHETIC: (made.images, made.labels, plain),
        BOTH: (torch.cat([images, made.images], 1), labels.repeat(1, 2), plain.repeat(1, 2)),
        AUGMENTED: (_augmented(world, images, seed), labels.repeat(1, _VIEWS), plain.repeat(1, _VIEWS)),
        TWICE: tuple(one.expand(count, *one.shape) for one in every),  # type: ignore[dict-item]
        NOISY: (images, labels, plain),
        MATCHED: (like, labels, plain),
    }
    asked = {PLAINLY: world.test} | {name: shifted(world, name, seed) for name in SHIFTS}
    right: dict[str, dict[str, Tensor]] = {}
    for name, one in sets.items():
        how = replace(recipe, jitter=0.5) if name == NOISY else recipe
        (judges,) = classifiers.fit(*one, pool.classes, part.network.spread, how, part.seed * 1_000 + part.rows[-1])
        answers = {change: classifiers.logits(judges, x).argmax(-1) for change, x in asked.items()}
        right[name] = {change: (one == world.test_labels).cpu() for change, one in answers.items()}
    return Utility(right, (width, noise))


def joined(parts: list[Utility]) -> Utility:
    """Pipelines of several parts as one, along T."""
    first = parts[0]
    right = {
        arm: {change: torch.cat([one.right[arm][change] for one in parts]) for change in by_change}
        for arm, by_change in first.right.items()
    }
    return Utility(right, first.matched)


def shifted(world: World, name: str, seed: int) -> Tensor:
    """The test images in coordinates (M, *S), changed in one way, half of them in either direction where there are two.

    By .35 radians, by an eighth of the side to the right or left, by noise of .3 in pixels that go from -1 to 1, by a
    blur of .8 pixels of an image of 8, and by half a dilation or half an erosion with a 3 by 3 square.
    """
    encode, decode = coders(world)
    images = decode(world.test).clamp(-1, 1)
    count, size = len(images), min(images.shape[2:])
    draw = keyed(seed, 2)
    sign = 2.0 * torch.randint(0, 2, (count,), generator=draw) - 1
    one, zero = torch.ones(count), torch.zeros(count)
    thick = torch.nn.functional.max_pool2d(images, 3, 1, 1)
    thin = -torch.nn.functional.max_pool2d(-images, 3, 1, 1)
    ways: dict[str, Callable[[], Tensor]] = {
        "rotation": lambda: moved(images, one, zero, zero, 0.35 * sign),
        "shift": lambda: moved(images, one, sign * size / 8, zero),
        "noise": lambda: images + 0.3 * random.noise_from(draw)(images),
        "blur": lambda: blurred(images, 0.8 * (size / 8) ** 0.5 * one),
        "thickness": lambda: (images + torch.where((sign > 0).view(-1, 1, 1, 1).to(images.device), thick, thin)) / 2,
    }
    return encode(ways[name]().clamp(-1, 1))


def roughness(images: Tensor) -> float:
    """The mean squared difference of neighbouring pixels, of images (N, C, H, W): noise of variance v adds 2 v."""
    across = (images[..., 1:] - images[..., :-1]).square().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).square().mean()
    return float((across + down) / 2)


def _as_smooth(world: World, images: Tensor, made: Published, plain: Tensor) -> tuple[Tensor, float, float]:
    """Real images (E, M, *S) blurred, or noised, until as rough as the synthetic ones, and how much it took."""
    encode, decode = coders(world)
    kept = plain.flatten() > 0
    real, synthetic = (decode(one.flatten(0, 1)[kept]) for one in (images, made.images))
    wanted, every = roughness(synthetic), decode(images.flatten(0, 1))
    if wanted >= roughness(real):
        noise = ((wanted - roughness(real)) / 2) ** 0.5
        like = every + noise * random.noise_from(keyed(0, 3))(every)
        return encode(like).unflatten(0, images.shape[:2]), 0.0, noise
    apart = [abs(roughness(blurred(real, width.expand(len(real)))) - wanted) for width in _WIDTHS]
    width = _WIDTHS[apart.index(min(apart))]
    like = blurred(every, width.expand(len(every)))
    return encode(like).unflatten(0, images.shape[:2]), float(width), 0.0


def _augmented(world: World, images: Tensor, seed: int) -> Tensor:
    """Views of images (E, M, *S), (E, 10 M, *S): a little larger or smaller, shifted and turned."""
    encode, decode = coders(world)
    shown = decode(images.flatten(0, 1))
    draw, unit = keyed(seed, 4), (min(shown.shape[2:]) / 8) ** 0.5
    views = []
    for _ in range(_VIEWS):
        scale, right, down, turn = 2 * torch.rand(4, len(shown), generator=draw) - 1
        one = moved(shown, 1 + 0.1 * scale, 0.5 * unit * right, 0.5 * unit * down, 0.2 * turn)
        views.append(encode(one).unflatten(0, images.shape[:2]))
    return torch.cat(views, 1)
