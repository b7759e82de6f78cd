"""L7: digits: how large a training set is memorized at each learning rate, and what copying costs.

One network for all noise levels, of the kind in `deeper`, so that hundreds train as one stack by `descend`. It is
F(c_in x, code of ln sigma), preconditioned as in `nets.Preconditioned`, and learns targets of unit variance.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from memlib import data, metrics, noise, sample
from memlib.papers.learning_rate.curvature import sharpness
from memlib.papers.learning_rate.deeper import Deep, deep
from memlib.papers.learning_rate.descent import descend, ramp
from memlib.papers.learning_rate.fixed_level import NoisyBatch, Problem, risk
from memlib.papers.learning_rate.study.edge import LINES
from memlib.random import keyed

WIDTH, LAYERS = 128, 2
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the steps, at which networks are looked at
COMPONENTS = 16  # leading principal components of the members, in which everything is computed
_MEMBERS = 250
_LEVELS = (0.1, 0.9)  # mean and deviation of ln(sigma / deviation of the data) in training
_SAMPLES = 100
CODES = 6


class Split(NamedTuple):
    """Images to train on and held-out images, (N, 16) each, in principal components; and where they come from."""

    members: Tensor
    held_out: Tensor
    description: str


class Trained(NamedTuple):
    """Looks along training: copied fraction, training loss, held-out loss, Frechet distance, (M, looks, 4).

    sharp: in units of the optimiser's edge at the end, (M,).
    """

    looks: Tensor
    sharp: Tensor


def split(half: str, seed: int, device: torch.device) -> Split:
    """250 members and 250 held-out digits of one half in the members' principal components, deviation 1 over all."""
    images = data.load("digits")
    parts = data.audit_split(images, _MEMBERS, half, seed)  # type: ignore[arg-type]
    members, held_out = (parts[name].images.flatten(1).double() for name in ("members", "non_members"))
    mean = members.mean(0)
    axes = torch.linalg.svd(members - mean, full_matrices=False).Vh[:COMPONENTS].T
    members, held_out = (members - mean) @ axes, (held_out - mean) @ axes
    unit = members.std()
    words = (
        f"{images.source}, {half} half: {len(members)} images to train on and {len(held_out)} held out, "
        f"in {COMPONENTS} principal components"
    )
    return Split((members / unit).float().to(device), (held_out / unit).float().to(device), words)


def trained(
    images: Split,
    optimiser: Literal["adam", "sgd"],
    rates: list[float],
    seeds: list[int],
    n: int,
    steps: int,
    batch: int,
    anneal_to: float | None = None,
) -> Trained:
    """Networks on the first n members, for rates x seeds, looked at on the way.

    Arguments:
        anneal_to: the rate that is reached at the end; the fall takes the second half. None holds the rate.
    """
    rate = torch.tensor(rates).repeat_interleave(len(seeds)).to(images.members)
    seed = torch.tensor(seeds).repeat(len(rates))
    dim, count = images.members.shape[1], len(rate)
    net = deep(seed, WIDTH, dim + CODES, LAYERS, outputs=dim).to(images.members)
    # Targets have unit variance; the points tell `descend` how many coordinates there are.
    task = Problem(images.members[None, :n].expand(count, -1, -1), *torch.ones(2, count).to(images.members))
    schedule = None if anneal_to is None else ramp(rate, 1.0, anneal_to, 0, steps // 2, steps - steps // 2)
    tests = [next(_batches(part[None], torch.tensor([-1]), 2048)) for part in (images.members[:n], images.held_out)]
    looks, sharp = [], torch.zeros(count)
    at = [max(1, round(share * steps)) for share in SHARES]
    batches = islice(_batches(task.points, seed, batch), steps)
    for progress in descend(net, task, rate, batches, optimiser=optimiser, schedule=schedule, at=at):
        losses = [risk(net, _for_all(test, count)) / dim for test in tests]
        x = sampled(net, dim)
        copies = torch.tensor([copied(one, images.members[:n]).rate for one in x]).to(rate)
        apart = torch.tensor([metrics.frechet_distance(one, images.held_out) for one in x]).to(rate)
        looks.append(torch.stack([copies, *losses, apart], 1))
        if progress.step == steps:
            test = next(_batches(images.members[None, :n], torch.tensor([-2]), 256))
            sharp = sharpness(net, _for_all(test, count), iterations=12, scale=progress.scale)
            last = rate if anneal_to is None else anneal_to
            sharp = sharp * last / LINES["SGD" if optimiser == "sgd" else "Adam"]
    return Trained(torch.stack(looks, 1).double().cpu(), sharp.cpu())


def sampled(net: Deep, dim: int) -> Tensor:
    """100 samples of each network, (M, 100, dim)."""
    grid = noise.karras(24, 0.02, 20.0, rho=5).to(net.w2)
    start = sample.start(grid, range(_SAMPLES), (dim,), dtype=grid.dtype, device=grid.device)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        skip, out, y = _preconditioned(x, torch.as_tensor(sigma).to(x).expand(x.shape[1]))
        return skip[:, None] * x + out[:, None] * net(y)

    return sample.ancestral(denoise, start.expand(len(net.w2), -1, -1), grid)


def copied(x: Tensor, training: Tensor) -> metrics.Count:
    """Samples (N, *S) less than a third as far from the nearest training image (n, *S) as from the next distinct."""
    return metrics.Count(int((metrics.l2_ratio(x.flatten(1), training.flatten(1)) < 1 / 3).sum()), len(x))


def _preconditioned(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip (B,), c_out (B,) and the network's input (M, B, d + 6), for x (M, B, d) at sigma (B,) and data of unit
    deviation. Karras et al. 2022, table 1."""
    total = 1 + sigma**2
    angle = sigma.log()
    waves = [wave(k * angle) for k in (1, 2) for wave in (torch.sin, torch.cos)]
    code = torch.stack([angle / 2, *waves, torch.ones_like(angle)], 1)
    y = torch.cat([x * total.rsqrt()[:, None], code.expand(len(x), -1, -1)], 2)
    return 1 / total, sigma * total.rsqrt(), y


def _batches(points: Tensor, seeds: Tensor, size: int) -> Iterator[NoisyBatch]:
    """Batches of F for points (M, n, d); that of a member depends on its seed and on the step alone."""
    names, which = seeds.unique(return_inverse=True)
    rows, weight, step = torch.arange(len(points))[:, None], points.new_full((size,), 1 / size), 0
    while True:
        drawn = []
        for name in names:
            generator = keyed(int(name), 10**6 + step)
            index = torch.randint(points.shape[1], (size,), generator=generator)
            drawn.append((index, torch.randn(size, points.shape[2], generator=generator)))
        # Levels are shared by all members of a step, so that inputs and targets are batched products.
        sigma = noise.lognormal(size, *_LEVELS, keyed(0, 10**6 + step)).to(points)
        index, z = (torch.stack(part)[which].to(points.device) for part in zip(*drawn, strict=True))
        x0 = points[rows, index]
        x = x0 + sigma[:, None] * z
        skip, out, y = _preconditioned(x, sigma)
        yield NoisyBatch(y, (x0 - skip[:, None] * x) / out[:, None], weight)
        step += 1


def _for_all(test: NoisyBatch, count: int) -> NoisyBatch:
    """A batch of one member for `count` members."""
    return test._replace(y=test.y.expand(count, -1, -1), target=test.target.expand(count, -1, -1))
