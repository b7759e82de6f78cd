"""The arms of the attack: labels for generated images, a classifier distilled from them, and guided samples."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from memlib import features, metrics, nets, noise
from memlib.cache._fingerprint import code_fingerprint
from memlib.cache.shards import Shards, stream
from memlib.papers.side import students, surrogates
from memlib.papers.side.attack import Similarities, sweep, uniform_labels
from memlib.papers.side.guidance import Logits, as_ddpm
from memlib.papers.side.study.judge import Judge, Measure, judge_of
from memlib.papers.side.study.model import Target
from memlib.papers.side.study.world import World, coders
from memlib.papers.side.surrogates import Clusters, Surrogate
from memlib.run import Run

ARMS = ("OL-TD", "OL-TI", "CL-TD", "RL-TD", "RL-TD (training)", "RL-TD (oracle)")
REPEATED = (2, 3, 5)  # samples that must resemble one another to make a candidate


@dataclass(frozen=True)
class Recipe:
    """How labels and classifiers are made: k-means with `clusters` centres, dropping those of less `cohesion`; `steps`
    of each classifier; a residual network on images (`residual`) or a perceptron on coordinates; their `seed`."""

    clusters: int
    cohesion: float
    steps: int
    residual: bool
    seed: int


@dataclass(frozen=True)
class Bench:
    """What all arms against one model share: `synthetic` (N, *S) are the generated images that they label."""

    world: World
    target: Target
    synthetic: Tensor
    recipe: Recipe
    measure: Measure


@dataclass(frozen=True)
class Found:
    """What an arm's samples resemble at each of W weights, N samples each: `similarity` (W, N) to the `nearest` member
    (W, N), `to_non_members` (W, N) to the nearest non-member; and at the weight of the comparison:

    `pairs`, distinct members over all pairs of each band; `l2_ratio` below 1/3 and `adaptive` distance at most 1,
    numbers of samples; `candidates` (3, 4), by how often a sample is repeated (`REPEATED`): groups, groups that copy a
    member, distinct members among them, groups that resemble a non-member.
    """

    similarity: Tensor
    nearest: Tensor
    to_non_members: Tensor
    pairs: dict[str, int]
    l2_ratio: int
    adaptive: int
    candidates: Tensor


def clustered(bench: Bench, run: Run) -> Clusters:
    """Clusters of the generated images, in features fitted to them alone."""
    recipe = bench.recipe
    generated = coders(bench.world)[1](bench.synthetic)
    return run.cached("clusters", _cluster, generated, recipe.clusters, recipe.cohesion, recipe.seed)


def _cluster(generated: Tensor, k: int, cohesion: float, seed: int) -> Clusters:
    return surrogates.cluster(features.half_whitened(generated)(generated), k, cohesion, seed=seed)


def surrogate(arm: str, bench: Bench, run: Run) -> Surrogate:
    """The images and labels of an arm. Each function of `surrogates` is given what its arm may see and nothing else."""
    world = bench.world
    z = coders(world)[0](world.members)
    if arm in ("OL-TD", "OL-TI"):
        return surrogates.teacher_labels(_teacher(z, world.labels, world.classes, bench, run), bench.synthetic, arm)
    if arm == "RL-TD (training)":
        apart = _teacher(z, torch.arange(len(z), device=z.device), len(z), bench, run)
        return surrogates.teacher_labels(apart, bench.synthetic, arm)
    if arm == "RL-TD (oracle)":
        return surrogates.training_indices(z)
    groups = clustered(bench, run)
    labelled = surrogates.cluster_labels(bench.synthetic, groups)
    if arm == "CL-TD":
        return labelled
    generator = torch.Generator().manual_seed(bench.recipe.seed)
    return surrogates.random_labels(labelled.images, int(groups.kept.sum()), generator)


def _teacher(z: Tensor, labels: Tensor, classes: int, bench: Bench, run: Run) -> nn.Module:
    """A classifier of clean members z (N, *S), which never meets a noisy image."""
    recipe = bench.recipe
    build = partial(classifier, classes, False, spread_of(bench), recipe.residual, z[:0])
    return run.trained("teacher", build, _teach, z, labels, recipe.steps, recipe.seed, seed=recipe.seed)


def _teach(net: nn.Module, z: Tensor, labels: Tensor, steps: int, seed: int) -> nn.Module:
    return students.teach(net, z, labels, steps, seed=seed)


def spread_of(bench: Bench) -> float:
    """The standard deviation of generated samples: an attacker cannot know that of the members."""
    return float(bench.synthetic.std())


def classifier(classes: int, time: bool, spread: float, residual: bool, like: Tensor) -> nets.Classifier:
    """A classifier, not yet trained, of samples like `like` (0, *S); from 64 pixels on it is the paper's network."""
    if residual:
        net = (nets.resnet34 if like.shape[-1] >= 64 else nets.ResNet)(classes, like.shape[1], time=time)
    else:
        net = nets.LabelMLP(classes, like.shape[1:], time=time)
    return nets.Classifier(net, spread).to(like)


def student(given: Surrogate, bench: Bench, run: Run) -> Logits:
    """The classifier distilled from a surrogate; the one without time as the paper's DDPM would show samples to it."""
    recipe, classes = bench.recipe, given.targets.shape[1]
    timed = given.arm != "OL-TI"
    build = partial(classifier, classes, timed, spread_of(bench), recipe.residual, bench.synthetic[:0])
    net = run.trained("student", build, _distil, given, recipe.steps, recipe.seed, run, seed=recipe.seed)
    return net if timed else as_ddpm(net)


def _distil(net: nn.Module, given: Surrogate, steps: int, seed: int, run: Run) -> nn.Module:
    folder = run.folder("student", code_fingerprint(__name__), net, given, steps, seed)
    return students.distil(net, given, steps, levels=(0.0, 1.4), seed=seed, checkpoint=folder)


def guided_samples(target: Target, net: Logits, classes: int, weights: list[float], n: int, run: Run) -> Shards:
    """n samples under each of the weights, (n, W, *S) on disk; each start wants a label drawn by chance.

    All weights of a start go through the sampler together, and start i has the same noise in every arm.
    """
    like = target.like

    def draw(seeds: Tensor) -> Tensor:
        fresh = noise.seeded(seeds)
        x = target.sigmas[0] * fresh(like.new_empty(len(seeds), *like.shape[1:]))
        labels = uniform_labels(fresh, len(seeds), classes)
        return sweep(target.denoiser, net, x, labels, weights, target.sigmas)

    folder = run.folder("guided", code_fingerprint(__name__), target, net, classes, weights, n)
    batch = max(1, 1250 // max(5, len(weights)))  # starts at a time: each stands for as many rows as weights
    return stream(draw, n, folder, key=folder.name, batch=batch, title="attack")


def attack(arm: str, bench: Bench, weights: list[float], at: float, n: int, run: Run) -> Found:
    """Attack with one arm: n samples under each of `weights`, compared with members and non-members.

    `at` is the weight of the comparison, one of `weights`.
    """
    given = surrogate(arm, bench, run)
    net = student(given, bench, run)
    shards = guided_samples(bench.target, net, given.targets.shape[1], weights, n, run)
    decode, judge = coders(bench.world)[1], judge_of(bench.world, bench.measure, run)
    by_weight = [
        judge.compare(decode(shard["images"][:, i].to(bench.target.like)) for shard in shards)
        for i in range(len(weights))
    ]
    column = weights.index(at)
    batches = (decode(shard["images"][:, column].to(bench.target.like)) for shard in shards)
    return found(by_weight, column, batches, judge, bench.world)


def found(by_weight: list[Similarities], at: int, batches: Iterable[Tensor], judge: Judge, world: World) -> Found:
    """`Found`, from the similarities at each weight and from the images of weight number `at`, in batches
    (B, C, H, W), which are read once."""
    encode, chosen, top = coders(world)[0], by_weight[at], judge.edges["high"]
    known, flat = judge.embed(judge.members), encode(world.members).flatten(1)
    rows, near, ratio, adaptive = [], {band: [] for band in judge.bands}, 0, 0
    for batch in batches:
        rows.append(judge.embed(batch))
        for band, (low, high) in judge.bands.items():
            near[band].append(metrics.matches(rows[-1], known, low, high)[1])
        counts = by_distance(encode(batch).flatten(1), flat)
        ratio, adaptive = ratio + counts[0], adaptive + counts[1]
    lines = []
    for least in REPEATED:
        first = metrics.medoids(torch.cat(rows), metrics.cliques(torch.cat(rows), top, least))
        right, wrong = chosen.hits(top)[first], chosen.to_non_members[first] >= top
        found = int((right >= 0).sum()), metrics.ums(right, len(chosen.similarity)).k
        lines.append([len(first), *found, int(wrong.sum())])
    similarity, nearest, to_non_members = (torch.stack(column).cpu() for column in zip(*by_weight, strict=True))
    pairs = {band: len(torch.cat(members).unique()) for band, members in near.items()}
    return Found(similarity, nearest, to_non_members, pairs, ratio, adaptive, torch.tensor(lines))


def by_distance(rows: Tensor, members: Tensor) -> tuple[int, int]:
    """How many rows (B, D) have an l2-ratio below 1/3 to the members (M, D), and how many an adaptive distance of at
    most 1. Distances are taken where the model works."""
    ratio = metrics.l2_ratio(rows, members)
    adaptive = metrics.adaptive_l2(rows, members, min(50, len(members)))
    return int((ratio < 1 / 3).sum()), int((adaptive <= 1).sum())
