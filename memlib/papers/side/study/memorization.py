"""What the model shows without an attack: its errors, its copies along training, and which training sets it keeps."""

from typing import cast

import torch
from torch import Tensor

from memlib import losses, metrics
from memlib.denoiser import pair
from memlib.features import Embed
from memlib.metrics import Count
from memlib.noise import seeded
from memlib.papers.side.study.arms import Bench
from memlib.papers.side.study.judge import Judge, judge_of
from memlib.papers.side.study.model import (
    Network,
    Target,
    Training,
    denoiser_with,
    network_of,
    states_of,
    trained,
    training_of,
    unguided,
)
from memlib.papers.side.study.results import Model
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.world import World, coders
from memlib.run import Run

STARTS = 500  # samples under the weights of each moment of the training
PLANTED = 10  # members that are trained on five times
FEWEST = 8  # training images that the search for the memorized size starts from


def measure_model(
    world: World,
    target: Target,
    judge: Judge,
    hits: Tensor,
    along: dict[str, list[float]] | None,
    settings: Settings,
    run: Run,
) -> Model:
    """All of `Model`; hits (N,) are the members that the unguided samples copy. `along` is that of `copies_along`, None
    for a model from elsewhere."""
    encode, decode = coders(world)
    z, fresh = encode(world.members), encode(world.non_members)
    levels = target.sigmas[(target.sigmas > 0.04) & (target.sigmas < 10)][::3]
    variance = (world.calibration - world.reference.mean(0)).square().mean()
    lost = (decode(encode(world.calibration)) - world.calibration).square().mean() / variance
    trace = bracket = duplicates = None
    if along is not None and settings.decisive:
        network, how = network_of(world, settings), training_of(settings)
        trace, bracket = memorized_sizes(z, fresh, network, how, run)
        duplicates = planted_duplicates(z, network, how, judge, decode, run)
    along = along or {"members": [], "non-members": []}
    return Model(
        members=len(z),
        sigmas=levels,
        error={"members": errors(target, z, levels), "non-members": errors(target, fresh, levels)},
        hits=hits.cpu(),
        steps=torch.linspace(settings.train_steps / 5, settings.train_steps, 5)[: len(along["members"])],
        along={name: torch.tensor(values) for name, values in along.items()},
        lost=float(lost),
        weights=sum(p.numel() for p in target.denoiser.parameters()),
        numbers=len(z) * z[0].numel(),
        emm=trace,
        emm_bracket=bracket,
        duplicates=duplicates,
    )


def errors(target: Target, x0: Tensor, levels: Tensor) -> Tensor:
    """Denoising error a coordinate at each of `levels` (L,), mean over x0 (N, *S), (L,), noise keyed by the image."""
    pairs = (pair(target.denoiser, x0, sigma, seeded(range(len(x0)))) for sigma in levels)
    with torch.no_grad():
        return torch.stack([losses.denoising(*both).mean() / x0[0].numel() for both in pairs]).cpu()


def copies_along(bench: Bench, network: Network, how: Training, run: Run) -> dict[str, list[float]]:
    """The fraction of 500 samples in the high band of a member and of a non-member, at each moment of the training."""
    (encode, decode), target = coders(bench.world), bench.target
    judge = judge_of(bench.world, bench.measure, run)
    states = states_of(encode(bench.world.members), network, how, run.seed, run)
    top, along = judge.edges["high"], {"members": [], "non-members": []}
    for state in states:
        now = Target(denoiser_with(state, network, target.like), target.sigmas, target.like)
        seen = judge.compare(decode(unguided(now, torch.arange(STARTS))))
        along["members"].append(float((seen.hits(top) >= 0).double().mean()))
        along["non-members"].append(float(seen.resembles_others(top).double().mean()))
    return along


def memorized_sizes(
    z: Tensor, fresh: Tensor, network: Network, how: Training, run: Run
) -> tuple[list[tuple[int, Count]], tuple[int, int | None]]:
    """The effective model memorization of Gu et al. 2023 by bisection: the largest training set of which nine samples
    in ten are memorized by the l2-ratio, as its trace and its bracket.

    z (N, *S) are the members; `fresh` (N, *S) serve as further training images, in models of their own.
    """
    everything = torch.cat([z, fresh])

    def memorized(n: int) -> Count:
        made = unguided(trained(everything[:n], network, how, run.seed, run), torch.arange(300)).flatten(1)
        return Count(int((metrics.l2_ratio(made, everything[:n].flatten(1)) < 1 / 3).sum()), 300)

    ended = metrics.emm(memorized, FEWEST, 2 * len(z))
    trace = cast(list[tuple[int, Count]], ended.trace)  # of what `memorized` returns
    return sorted(trace), (ended.size, ended.above)


def planted_duplicates(
    z: Tensor, network: Network, how: Training, judge: Judge, decode: Embed, run: Run
) -> dict[str, int]:
    """Train on z (N, *S) with ten members five times each, and count which of 2,000 samples copy which members.

    `plain second` and `distinct second` are the copies of the ten whose l2-ratio is below 1/3, with the second nearest
    row and with the second nearest that differs from the nearest.
    """
    many = torch.cat([z, z[:PLANTED].repeat_interleave(4, 0)])
    made = unguided(trained(many, network, how, run.seed, run), torch.arange(2000))
    member = judge.compare(decode(made)).hits(judge.edges["high"])
    of_ten = (member >= 0) & (member < PLANTED)
    counts = {"samples": len(made), "of the ten": int(of_ten.sum()), "of the others": int((member >= PLANTED).sum())}
    if of_ten.any():
        copies, rows = made[of_ten].flatten(1), many.flatten(1)
        two = torch.cdist(copies, rows).topk(2, largest=False).values
        counts["plain second"] = int((two[:, 0] / two[:, 1] < 1 / 3).sum())
        counts["distinct second"] = int((metrics.l2_ratio(copies, rows) < 1 / 3).sum())
    return counts
