"""L7: digits and Adam: how large a training set is memorized at each learning rate, and what copying costs."""

import copy
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from memlib import data, losses, metrics, nets, noise, sample, train
from memlib.denoiser import pair
from memlib.random import choose

BATCH = 64  # images a step, in the comparison of rates
_MEMBERS = 250
_LEVELS = (-0.5, 1.2)  # mean and deviation of ln sigma in training
_SAMPLES = 250


class Split(NamedTuple):
    """Images to train on and held-out images, (N, 1, 8, 8) each, centred on a third part; and where they come from."""

    members: Tensor
    held_out: Tensor
    description: str


def split(half: str, seed: int, device: torch.device) -> Split:
    """The digits of one half: 250 members, 250 held out, and the rest, on whose mean both are centred, (N, 1, 8, 8)."""
    images = data.load("digits")
    parts = data.audit_split(images, _MEMBERS, half, seed)  # type: ignore[arg-type]
    members, held_out, reference = (parts[name].images.to(device) for name in ("members", "non_members", "reference"))
    words = (
        f"{images.source}, {half} half: {len(members)} images to train on, {len(held_out)} held out, "
        f"centred on {len(reference)} others"
    )
    return Split(members - reference.mean(0), held_out - reference.mean(0), words)


def largest_memorized(
    z: Tensor, rate: float, batch: int, key: int, steps: int, sizes: list[int], ratio: float
) -> Tensor:
    """EMM on images z (N, *S) by bisection, and the smallest size that fell short (0: none), (2,).

    EMM is the largest training set of which 90 % of the samples are memorized, sought between the two `sizes`.
    """

    def memorized(n: int) -> metrics.Count:
        *_, net = fitted(z, rate, n, batch, key, steps)
        return copied(sampled(net, z), z[:n])

    found = metrics.emm(memorized, sizes[0], sizes[1], ratio=ratio)
    return torch.tensor([found.size, found.above or 0])


def walk(z: Tensor, held_out: Tensor, schedule: str, rate: float, key: int, n: int, steps: int) -> Tensor:
    """At four looks while a network trains on the first n images z (N, *S), (4, 3).

    Memorized fraction, denoising loss a coordinate on held-out images (M, *S), and squared Frechet distance to them.
    """
    looks = []
    for net in fitted(z, rate, n, BATCH, key, steps, schedule):
        x, fixed = sampled(net, z), noise.seeded(range(len(held_out)))
        sigma = noise.lognormal(len(held_out), *_LEVELS, torch.Generator().manual_seed(0)).to(z)
        loss = losses.denoising(*pair(net, held_out, sigma, fixed)).mean() / z[0].numel()
        distance = metrics.frechet_distance(x.flatten(1), held_out.flatten(1))
        looks.append(torch.tensor([copied(x, z[:n]).rate, loss, distance]))
    return torch.stack(looks)


def fitted(
    z: Tensor, rate: float, n: int, batch: int, key: int, steps: int, schedule: str = "constant"
) -> Iterator[nn.Module]:
    """The network on the first n images z (N, *S) after an eighth, a quarter, half and all of the steps."""
    torch.manual_seed(key)
    net = nets.Preconditioned(nets.ResidualMLP(z.shape[1:], width=128, blocks=2), float(z.std())).to(z)

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        x0 = choose(z[:n], batch, generator)
        sigma = noise.as_level(noise.lognormal(batch, *_LEVELS, generator), z)
        weight = cast(nets.Preconditioned, net).weight(sigma)
        return losses.denoising(*pair(net, x0, sigma, noise.noise_from(generator)), weight).mean()

    marks = [steps // 8, steps // 4, steps // 2, steps]
    for step in train.fit(net, loss, steps, lr=rate, schedule=schedule, seed=key, title=f"n = {n}"):  # type: ignore
        if step.index + 1 in marks:
            yield copy.deepcopy(net).eval().requires_grad_(False)


def sampled(net: nn.Module, z: Tensor) -> Tensor:
    """250 samples of a network, in the shape of images z (N, *S)."""
    grid = noise.karras(24, 0.02, 20.0, rho=5)
    start = sample.start(grid, range(_SAMPLES), z.shape[1:], dtype=z.dtype, device=z.device)
    return sample.ancestral(net, start, grid)


def copied(x: Tensor, training: Tensor) -> metrics.Count:
    """Samples (N, *S) less than a third as far from the nearest training image (n, *S) as from the next distinct."""
    return metrics.Count(int((metrics.l2_ratio(x.flatten(1), training.flatten(1)) < 1 / 3).sum()), len(x))
