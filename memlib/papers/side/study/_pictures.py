"""Images for the chapter. They are made again from the cache and not kept with the results, which hold no image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib import metrics, sample
from memlib.papers.side.attack import in_use
from memlib.papers.side.study.arms import ARMS, Bench, clustered, guide, guided_samples, surrogate
from memlib.papers.side.study.experiment import in_dtype, runs_of, set_stage, weights_of
from memlib.papers.side.study.judge import Judge
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.world import coders, prepare
from memlib.run import Run

SHOWN_ARM = "CL-TD own"
SHOWN_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
SHOWN = (0, 10, 16, 20, 24, 28, 32, 36, 40, 44, 49)  # steps of the sampling path


@dataclass(frozen=True)
class Pictures:
    """Images (N, C, H, W) on the CPU.

    `members` and `non_members`; `path`, the denoised image at some of the levels `sigmas` along twelve sampling paths,
    above `ends`, the members that they end nearest to; `clusters`, generated images of the four best; `by_weight`,
    (samples, their nearest members) at each weight; `pairs` the same in each band, each member once, with the L2
    distances (N,) of the pairs.
    """

    members: Tensor
    non_members: Tensor
    sigmas: list[float]
    path: list[Tensor]
    ends: Tensor
    clusters: list[Tensor]
    by_weight: dict[float, tuple[Tensor, Tensor]]
    pairs: dict[str, tuple[Tensor, Tensor, Tensor]]


def pictures(settings: Settings, run: Run) -> Pictures:
    """The images that the chapter shows, of the networks and samples that `experiment.run` left in the cache."""
    with in_dtype(settings):
        own = runs_of(settings, run)[0]
        stage = set_stage(*prepare(settings, own), settings, own, first=True)
        bench = stage.bench
        sigmas, path, ends = _along(bench)
        return Pictures(
            bench.world.members[:16].cpu(),
            bench.world.non_members[:16].cpu(),
            sigmas,
            path,
            ends,
            _of_clusters(bench, own),
            _by_weight(bench, stage.judge, own),
            _in_bands(settings, bench, stage.judge, own),
        )


def _along(bench: Bench) -> tuple[list[float], list[Tensor], Tensor]:
    """What the model believes, D(x, sigma), along twelve paths, and the members that these end nearest to."""
    (encode, decode), target = coders(bench.world), bench.target
    z, like = encode(bench.world.members), target.like
    x = sample.start(target.sigmas, range(12), like.shape[1:], dtype=like.dtype, device=like.device)
    path = [x, *sample.ancestral_path(target.denoiser, x, target.sigmas)]
    with torch.no_grad():
        beliefs = [decode(target.denoiser(path[i], target.sigmas[i])) for i in SHOWN]
    closest = metrics.nearest(encode(beliefs[-1]).flatten(1), z.flatten(1))[1][:, 0]
    return target.sigmas[list(SHOWN)].tolist(), [one.cpu() for one in beliefs], bench.world.members[closest].cpu()


def _of_clusters(bench: Bench, run: Run) -> list[Tensor]:
    """Up to 14 generated images of each of the four largest clusters."""
    labels, decode = clustered(bench, run).labels, coders(bench.world)[1]
    largest = torch.bincount(labels[labels >= 0]).argsort(descending=True)[:4].tolist()
    return [decode(bench.synthetic[labels == label][:14]).cpu() for label in largest]


def _by_weight(bench: Bench, judge: Judge, run: Run) -> dict[float, tuple[Tensor, Tensor]]:
    """Twelve samples of `SHOWN_ARM` at each of `SHOWN_WEIGHTS`, and their nearest members."""
    given = surrogate(ARMS[SHOWN_ARM].surrogate, bench, run)
    net, weights = guide(SHOWN_ARM, given, bench, run), list(SHOWN_WEIGHTS)
    shards = guided_samples(bench, net, in_use(given.targets), weights, 12, run, own=True)
    decode, images = coders(bench.world)[1], shards[:12]["images"].to(bench.target.like)
    made = {weight: decode(images[:, i]) for i, weight in enumerate(weights)}
    return {weight: (one.cpu(), bench.world.members[judge.compare(one).nearest].cpu()) for weight, one in made.items()}


def _in_bands(settings: Settings, bench: Bench, judge: Judge, run: Run) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """The nearest pair of each member in each band, at most eight of them, nearest first, for `SHOWN_ARM`."""
    given, weights = surrogate(ARMS[SHOWN_ARM].surrogate, bench, run), weights_of(SHOWN_ARM, settings)
    net, n = guide(SHOWN_ARM, given, bench, run), settings.n_samples
    shards = guided_samples(bench, net, in_use(given.targets), weights, n, run, own=True)
    column, decode, like = weights.index(settings.own_weight), coders(bench.world)[1], bench.target.like
    images = torch.cat([decode(shard["images"][:, column].to(like)) for shard in shards])
    seen, pairs = judge.compare(images), {}
    for band, ends in judge.bands.items():
        inside = (seen.hits(*ends) >= 0).nonzero()[:, 0]
        inside, once = inside[seen.distance[inside].argsort()], {}
        for row in inside.tolist():
            once.setdefault(int(seen.nearest[row]), row)
        best = torch.tensor(list(once.values())[:8], dtype=torch.long, device=images.device)
        members = bench.world.members[seen.nearest[best]]
        pairs[band] = images[best].cpu(), members.cpu(), seen.distance[best].cpu()
    return pairs
