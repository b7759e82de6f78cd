"""S8: do labels in training make a model memorize more? Networks that differ in their labels alone, trained as one.

A pair of this experiment is one deal of the digits and one set of initial weights. Each of four arms trains a network
on it, from the same weights, on the same images in the same order under the same noise. All have the same layers: an
unconditional network is one whose every label is dropped.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from memlib import data, features, losses, metrics, nets, noise, sample, train
from memlib.denoiser import pair
from memlib.random import keyed, to_device
from memlib.run import Run

ARMS = ("unconditional", "class", "random", "one an image")
SMALLEST = 8  # images that the search for the EMM starts from
_COMPONENTS = 40  # of the descriptor
_LABELS, _SAMPLED = -1, -2  # steps of the keyed generator, apart from those of training


@dataclass(frozen=True)
class Design:
    """What all arms have in common: members, network, training, samples, and how finely the EMM is sought."""

    members: int = 80
    width: int = 128  # units of a layer
    steps: int = 1500  # optimiser steps
    batch: int = 64  # images a step
    lr: float = 3e-3  # learning rate of Adam, falling to 0 along a cosine
    samples: int = 500  # of each network
    levels: int = 30  # steps of the sampler
    fpr: float = 0.01  # fraction of held-out images that pass for copies
    ratio: float = 1.42  # ends of the bracket of the EMM


class Deal(NamedTuple):
    """One pair's images, centred, (N, 1, 8, 8) each, and the members' labels (A, N) in each arm, N where dropped."""

    seed: int
    members: Tensor
    non_members: Tensor
    reference: Tensor
    calibration: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainedArms:
    """What P pairs of networks of each of A arms copy; tensors (A, P), arms in the order of `ARMS`.

    `copied` and `distinct` count samples that copy a member and members that are copied, of `samples`; `non_members`
    those that pass for copies of as many images that no network saw. `ratio` is theorem 1's ratio of the labels,
    eq. 50. `emm` and `above` are the ends of the bracket of the EMM; 0 stands for an end that was not reached.
    """

    members: int
    samples: int
    copied: Tensor
    distinct: Tensor
    non_members: Tensor
    ratio: Tensor
    emm: Tensor
    above: Tensor

    @property
    def fraction(self) -> Tensor:
        """The fraction of samples that copy a member, (A, P)."""
        return self.copied.double() / self.samples


def measure_training(design: Design, half: Literal["explore", "report"], pairs: int, run: Run) -> TrainedArms:
    """Train and judge `pairs` networks of each arm, and as many again for each size that the search for the EMM tries.

    Members and weights of each pair have the seeds run.seed, run.seed + 1, ... A stopped run goes on where it was.
    """
    like, shape = torch.empty(0, device=run.device), (len(ARMS), pairs)
    deals = [deal(design, half, seed, like) for seed in range(run.seed, run.seed + pairs)]

    def counted(sizes: Tensor) -> Tensor:
        return run.cached("training", copies, deals, sizes, design)

    def memorized(sizes: list[int]) -> list[float]:
        return (counted(torch.tensor(sizes).view(shape))[0].double() / design.samples).flatten().tolist()

    counts, all_members = counted(torch.full(shape, design.members)), [design.members] * math.prod(shape)
    known = [{design.members: rate} for rate in memorized(all_members)]
    ends = searched(memorized, known, SMALLEST, design.members, design.ratio)
    ratios = [[metrics.label_ratio(one.members, one.labels[arm]) for one in deals] for arm in range(len(ARMS))]
    return TrainedArms(
        design.members,
        design.samples,
        copied=counts[0],
        distinct=counts[1],
        non_members=counts[2],
        ratio=torch.tensor(ratios),
        emm=torch.tensor([end.size for end in ends]).view(shape),
        above=torch.tensor([end.above or 0 for end in ends]).view(shape),
    )


def deal(design: Design, half: Literal["explore", "report"], seed: int, like: Tensor) -> Deal:
    """Digits of one half, dealt by seed: members (N, 1, 8, 8), their labels (A, N), and images that no network sees.

    The random labels are the class labels in another order, so that both arms have labels of the same sizes.
    """
    parts = data.audit_split(data.load("digits"), design.members, half, seed)
    named, n, mean = parts["members"].labels, design.members, parts["reference"].images.mean(0)
    seen = {name: (part.images - mean).to(like) for name, part in parts.items()}
    shuffled = named[torch.randperm(n, generator=keyed(seed, _LABELS))]
    labels = torch.stack([torch.full((n,), n), named, shuffled, torch.arange(n)]).to(like.device)
    return Deal(seed, seen["members"], seen["non_members"], seen["reference"], seen["calibration"], labels)


def copies(deals: Sequence[Deal], sizes: Tensor, design: Design) -> Tensor:
    """Copies, copied members and seeming copies of non-members, of the samples of networks that are trained on the
    first `sizes` (A, P) members of each deal, (3, A, P)."""
    stack = fitted(deals, sizes, design)
    made = sampled(stack, deals, sizes, design)  # (A, P, samples, 1, 8, 8)
    counts = torch.zeros(3, *sizes.shape, dtype=torch.int64)
    for (arm, number), size in zip(places(sizes), sizes.flatten().tolist(), strict=True):
        hits, others = hits_of(made[arm, number], deals[number], size, design.fpr)
        found = int((hits >= 0).sum()), metrics.ums(hits, design.samples).k, int((others >= 0).sum())
        counts[:, arm, number] = torch.tensor(found)
    return counts


def places(sizes: Tensor) -> list[tuple[int, int]]:
    """Arm and pair of each network of a stack, in its order; sizes (A, P)."""
    return [(arm, number) for arm in range(sizes.shape[0]) for number in range(sizes.shape[1])]


def started(deals: Sequence[Deal], design: Design) -> nets.Stack:
    """The untrained networks: each pair has its own initial weights, which its arms share.

    Networks work on images (B, 1, 8, 8), and take a label for each member and the one that means none.
    """
    first = []
    with torch.random.fork_rng():
        for one in deals:
            torch.manual_seed(one.seed)
            net = nets.ResidualMLP(one.members.shape[1:], width=design.width, blocks=2, classes=design.members)
            first.append(nets.Preconditioned(net, float(one.members.std())).to(one.members))
    return nets.Stack([copy.deepcopy(net) for _ in ARMS for net in first])


def batch_of(
    deals: Sequence[Deal], sizes: Tensor, design: Design, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step's images, noise levels, noise and labels for all networks: (A P B, 1, 8, 8), (A P B,), as the images and
    (A P B,). All arms of a pair get the same draws; `sizes` (A, P) limits the images."""
    arms, pairs = sizes.shape
    place = torch.rand(pairs, design.batch, generator=generator)
    level = noise.lognormal(pairs * design.batch, -0.5, 1.2, generator).view(pairs, -1)
    eps = torch.randn(pairs, design.batch, *deals[0].members.shape[1:], generator=generator)
    rows = (place * sizes[..., None]).long()  # (A, P, B)
    x0, y = chosen(deals, rows)
    like = deals[0].members
    sigma, eps = (to_device(part.expand(arms, *part.shape).flatten(0, 2), like.device) for part in (level, eps))
    return x0.flatten(0, 2), sigma.to(like), eps.to(like), y.flatten()


def chosen(deals: Sequence[Deal], rows: Tensor) -> tuple[Tensor, Tensor]:
    """The members at `rows` (A, P, B) of each deal, (A, P, B, 1, 8, 8), and their labels in each arm, (A, P, B)."""
    rows = to_device(rows, deals[0].members.device)
    x0 = torch.stack([one.members[rows[:, p]] for p, one in enumerate(deals)], 1)
    y = torch.stack([one.labels.gather(1, rows[:, p]) for p, one in enumerate(deals)], 1)
    return x0, y


def fitted(deals: Sequence[Deal], sizes: Tensor, design: Design) -> nn.Module:
    """All networks, trained on the first `sizes` (A, P) members of their deals: a stack in evaluation mode."""
    stack = started(deals, design)
    spread = stack.buffers_of["sigma_data"].repeat_interleave(design.batch)

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        x0, sigma, eps, y = batch_of(deals, sizes, design, generator)
        weight = (sigma**2 + spread**2) / spread**2  # `Preconditioned.weight` of each network
        values = losses.denoising(*pair(lambda x, level: net(x, level, y), x0, sigma, lambda _: eps), weight)
        return values.unflatten(0, (sizes.numel(), -1)).mean(1).sum()

    average = copy.deepcopy(stack)
    options = {"lr": design.lr, "clip": None, "ema": average, "decay": 0.99, "seed": deals[0].seed}
    return train.train(stack, loss, design.steps, title=f"{sizes.numel()} networks", **options)


def sampled(stack: nn.Module, deals: Sequence[Deal], sizes: Tensor, design: Design) -> Tensor:
    """Samples of every network, (A, P, samples, 1, 8, 8). Arms of a pair share starts and the members whose labels they
    are given, drawn by chance among the first `sizes` (A, P)."""
    like, count = deals[0].members, design.samples
    place = torch.stack([torch.rand(count, generator=keyed(one.seed, _SAMPLED)) for one in deals])
    _, y = chosen(deals, (place * sizes[..., None]).long())
    grid = noise.karras(design.levels, 0.02, 20.0, rho=5)
    seeds = torch.cat([one.seed * 10**6 + torch.arange(count) for one in deals])
    x = sample.start(grid, seeds, like.shape[1:], dtype=like.dtype, device=like.device).repeat(len(sizes), 1, 1, 1)
    made = sample.ancestral(partial(stack, y=y.flatten()), x, grid)
    return made.view(*sizes.shape, count, *like.shape[1:])


def hits_of(made: Tensor, one: Deal, size: int, fpr: float) -> tuple[Tensor, Tensor]:
    """The member that each sample (N, 1, 8, 8) copies among the first `size`, and likewise the non-member, -1 for none,
    (N,) each. Non-members are as many and have the same thresholds."""
    embed, members = features.half_whitened(one.reference, _COMPONENTS), one.members[:size]
    edges = metrics.joint_threshold(*likeness(one.calibration, members, embed)[:2], fpr)
    hits = []
    for images in (members, one.non_members[:size]):
        cosine, distance, nearest = likeness(made, images, embed)
        hits.append(nearest.where(edges.passed(cosine, distance), -1))
    return hits[0], hits[1]


def likeness(images: Tensor, members: Tensor, embed: features.Embed) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine of images (N, *S) with the nearest member (M, *S), distance to it in pixels, and its index, (N,) each."""
    return metrics.closest(images, embed(images), members, embed(members))


def searched(
    memorized: Callable[[list[int]], list[float]], known: list[dict[int, float]], low: int, high: int, ratio: float
) -> list[metrics.Emm]:
    """The EMM of several networks by bisections in step, so that the networks which one step asks for train together.

    Arguments:
        memorized: the memorized fraction of each network, trained on as many images as it is given for each.
        known: fractions that are known already, by size, for each network; those found are added.
        low, high, ratio: as in `metrics.emm`.
    """
    while True:
        ends, wanted = [], []
        for one in known:
            try:
                ends.append(metrics.emm(one.__getitem__, low, high, ratio=ratio))
                wanted.append(low)  # this one is done, and trains along
            except KeyError as missing:
                wanted.append(missing.args[0])
        if len(ends) == len(known):
            return ends
        for one, size, rate in zip(known, wanted, memorized(wanted), strict=True):
            one.setdefault(size, rate)  # one that trains along keeps what it said first
