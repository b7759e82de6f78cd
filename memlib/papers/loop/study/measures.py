"""What a stack of models gives away, and how good its samples are: everything that is asked before and after."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlib import membership, metrics, noise, sample
from memlib.denoiser import Denoiser
from memlib.features import Embed
from memlib.papers.loop.study.world import World
from memlib.shapes import Bool, Float, Int


@dataclass(frozen=True)
class Attack:
    """How models are attacked.

    Attributes:
        samples: of each model; sample i starts from the same noise in every model.
        steps: of Heun's method.
        fpr: the fraction of held-out images that may pass for a copy.
        levels: sigma of the membership statistic, which is the mean over them.
        draws: noises of each image in it.
        view: sigma of the noisy view of an image that an adversary holds.
    """

    samples: int
    steps: int
    fpr: float
    levels: tuple[float, ...]
    draws: int
    view: float


class Judge:
    """Calls a sample a copy where it resembles a member as few held-out images do, by cosine and by distance at once.

    Every model has thresholds of its own, since it has members of its own.
    """

    def __init__(self, world: World, embed: Embed, fpr: float) -> None:
        self.world, self.embed = world, embed
        self.features = embed(world.pool)
        held_out = embed(world.test)
        self.thresholds = []
        for inside in world.inside:
            cosine, distance, _ = self._closest(world.test, held_out, inside)
            self.thresholds.append(metrics.joint_threshold(cosine, distance, fpr))

    def _closest(self, images: Tensor, features: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosine with, distance to and place of the nearest member of each image (B, *S), (B,) each."""
        places = inside.nonzero()[:, 0]
        cosine, distance, index = metrics.closest(images, features, self.world.pool[places], self.features[places])
        return cosine, distance, places[index]

    def copies(self, images: Float[Tensor, "t b *s"]) -> Int[Tensor, "t b"]:
        """The member that each of B images of each model copies: its place in the pool, or -1 for none, (T, B)."""
        found = []
        for one, inside, threshold in zip(images, self.world.inside, self.thresholds, strict=True):
            cosine, distance, place = self._closest(one, self.embed(one), inside)
            found.append(place.where(threshold.passed(cosine, distance), -1))
        return torch.stack(found)


def drawn(stack: Denoiser, world: World, how: Attack, seed: int) -> Float[Tensor, "t b *s"]:
    """Samples of each model of a stack, guided or not, (T, S, *shape)."""
    models, sigmas = len(world.inside), noise.karras(how.steps + 1)
    start = sample.start(sigmas, _names(seed, how.samples), world.pool.shape[1:]).to(world.pool)
    x = sample.heun(stack, start.repeat(models, *[1] * (start.ndim - 1)), sigmas)
    return x.unflatten(0, (models, -1))


def restored(stack: nn.Module, judge: Judge, some: Bool[Tensor, "t n"], how: Attack, seed: int) -> Float[Tensor, " t"]:
    """The share of `some` (T, N) images that come back as copies of themselves from a noisy view, (T,).

    The adversary holds the image with noise of level `how.view`, and lets the model denoise it.
    """
    pool = judge.world.pool
    most = int(some.sum(1).max())
    places = some.long().topk(most, dim=1).indices  # where fewer are some, the rest are not counted
    counted = some.gather(1, places)
    grid = noise.karras(how.steps + 1)
    sigmas = torch.cat((grid.new_tensor([how.view]), grid[grid < how.view]))
    start = sample.start_from(pool[places.flatten()], sigmas, _names(seed + 1, places.numel()))
    x = sample.heun(stack, start, sigmas).unflatten(0, places.shape)
    right = (judge.copies(x) == places) & counted
    return right.sum(1).double() / counted.sum(1)


def statistic(stack: nn.Module, world: World, how: Attack, seed: int) -> Float[Tensor, "t n"]:
    """Minus the denoising loss of each image of the pool under each model, the mean over levels, (T, N)."""
    models, names = len(world.inside), _names(seed + 2, len(world.pool))
    x0 = world.pool.repeat(models, *[1] * (world.pool.ndim - 1))
    total = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    for sigma in how.levels:
        fresh = noise.seeded(names * models)
        total += membership.loss_statistic(stack, x0, sigma, fresh, how.draws)
    return (total / len(how.levels)).unflatten(0, (models, -1))


def held_out_loss(stack: nn.Module, world: World, how: Attack, seed: int) -> Float[Tensor, " t"]:
    """The denoising loss of held-out images under each model, the mean over levels, (T,)."""
    models, names = len(world.inside), _names(seed + 3, len(world.test))
    x0 = world.test.repeat(models, *[1] * (world.test.ndim - 1))
    losses = [membership.loss_statistic(stack, x0, sigma, noise.seeded(names * models)) for sigma in how.levels]
    return -torch.stack(losses).mean(0).unflatten(0, (models, -1)).mean(1)


def precision(samples: Float[Tensor, "t b *s"], images: Float[Tensor, " m *s"], embed: Embed) -> Float[Tensor, " t"]:
    """The share of the samples of each model that lie among the images, (T,). Kynkaanniemi et al. 2019; k = 3."""
    real = embed(images)
    return torch.tensor([metrics.precision_recall(real, embed(one)).precision.rate for one in samples])


def distance(samples: Float[Tensor, "t b *s"], images: Float[Tensor, " m *s"], embed: Embed) -> Float[Tensor, " t"]:
    """Frechet distance of the samples of each model to the images, (T,)."""
    real = metrics.Moments(embed(images[:1]).shape[1], images.device).update(embed(images))
    return torch.tensor([metrics.frechet_distance(real, embed(one)) for one in samples])


def area(score: Float[Tensor, "t n"], yes: Bool[Tensor, "t n"], no: Bool[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """For each model, the probability that a score of `yes` exceeds one of `no`, (T,)."""
    return torch.tensor(
        [metrics.auc(row[a], row[b])[0] for row, a, b in zip(score, yes, no, strict=True)], dtype=torch.float64
    )


def _names(seed: int, count: int) -> list[int]:
    return list(range(seed * 10**6, seed * 10**6 + count))
