"""Images for the chapter. They are made again from the cache and not kept with the results, which hold no image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib import metrics, sample
from memlib.papers.side.study.arms import Bench, clustered, guided_samples, student, surrogate
from memlib.papers.side.study.experiment import in_dtype, set_stage, weights_of
from memlib.papers.side.study.judge import Judge
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.world import coders, prepare
from memlib.run import Run

SHOWN = (0, 10, 16, 20, 24, 28, 32, 36, 40, 44, 49)  # steps of the sampling path


@dataclass(frozen=True)
class Pictures:
    """Images (N, C, H, W) on the CPU.

    `members` and `non_members`; `path`, the denoised image at some of the levels `sigmas` along twelve sampling paths,
    above `ends`, the members that they end nearest to; `clusters`, generated images of the four largest; `by_weight`
    and `pairs`, (samples, their nearest members) at each weight and in each band.
    """

    members: Tensor
    non_members: Tensor
    sigmas: list[float]
    path: list[Tensor]
    ends: Tensor
    clusters: list[Tensor]
    by_weight: dict[float, tuple[Tensor, Tensor]]
    pairs: dict[str, tuple[Tensor, Tensor]]


def pictures(settings: Settings, run: Run) -> Pictures:
    """The images that the chapter shows, of the networks and samples that `experiment.run` left in the cache."""
    with in_dtype(settings):
        stage = set_stage(*prepare(settings, run), settings, run)
        bench = stage.bench
        sigmas, path, ends = _along(bench)
        by_weight, pairs = _of_swept(settings, bench, stage.judge, run)
        return Pictures(
            bench.world.members[:16].cpu(),
            bench.world.non_members[:16].cpu(),
            sigmas,
            path,
            ends,
            _of_clusters(bench, run),
            by_weight,
            pairs,
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


def _of_swept(settings: Settings, bench: Bench, judge: Judge, run: Run) -> tuple[dict, dict]:
    """Twelve samples at each weight, and the most similar pairs of each band at the weight of the comparison."""
    given = surrogate(settings.swept, bench, run)
    net, weights, n = student(given, bench, run), weights_of(settings), settings.n_samples
    shards = guided_samples(bench.target, net, given.targets.shape[1], weights, n, run)
    decode, members, like = coders(bench.world)[1], bench.world.members, bench.target.like
    by_weight, pairs = {}, {}
    for i, weight in enumerate(weights):
        images = decode(shards[:12]["images"][:, i].to(like))
        by_weight[weight] = (images.cpu(), members[judge.compare(images).nearest].cpu())
    column = weights.index(settings.weight)
    seen = judge.compare(decode(shard["images"][:, column].to(like)) for shard in shards)
    for band, ends in judge.bands.items():
        inside = metrics.in_band(seen.similarity, *ends).nonzero()[:, 0]
        best = inside[seen.similarity[inside].argsort(descending=True)][:16]
        images = decode(shards[best.cpu()]["images"][:, column].to(like))
        pairs[band] = (images.cpu(), members[seen.nearest[best]].cpu())
    return by_weight, pairs
