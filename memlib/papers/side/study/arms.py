"""The arms of the attack: labels for generated images, a classifier distilled from them, and guided samples."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from memlib import features, metrics, nets, noise
from memlib.cache._fingerprint import code_fingerprint
from memlib.cache.shards import Shards, stream
from memlib.papers.side import students, surrogates
from memlib.papers.side.attack import in_use, own_labels, sweep, uniform_labels
from memlib.papers.side.guidance import Logits, as_ddpm
from memlib.papers.side.study.judge import Judge, Measure, components, judge_of
from memlib.papers.side.study.model import Target
from memlib.papers.side.study.world import World, coders
from memlib.papers.side.surrogates import Clusters, Surrogate
from memlib.run import Run

REPEATED = (2, 3, 5)  # samples that must resemble one another to make a candidate
TOPS = (0.001, 0.005, 0.01, 0.05, 0.1)  # fractions of the most similar samples


@dataclass(frozen=True)
class Arm:
    """An arm: which `surrogate` labels the generated images, which label a sample is guided to (`draw`: uniform on
    those in use, or its own), which classifier guides (`student`), and what the paper has of it."""

    surrogate: str
    draw: Literal["uniform", "own"]
    student: Literal["with time", "without time", "the teacher itself"]
    paper: str


ARMS = {
    "CL-TD own": Arm("CL-TD", "own", "with time", "no"),
    "CL-TI own": Arm("CL-TI", "own", "without time", "no"),
    "CL-TD": Arm("CL-TD", "uniform", "with time", "named, sec. 3.3.1"),
    "OL-TD": Arm("OL-TD", "uniform", "with time", "SIDE, table 1"),
    "OL-TD own": Arm("OL-TD", "own", "with time", "no"),
    "OL-TI": Arm("OL-TD", "uniform", "the teacher itself", "table 1"),
    "RL-TD own": Arm("RL-TD", "own", "with time", "no: a control"),
    "RL-TD (training)": Arm("RL-TD (training)", "uniform", "with time", "sec. 4.2"),
    "RL-TD (oracle)": Arm("RL-TD (oracle)", "uniform", "with time", "no: a bound"),
}
COMPARED = tuple(ARMS)[:7]  # arms on every network; the others are references on the first


@dataclass(frozen=True)
class Recipe:
    """How labels and classifiers are made: k-means with `clusters` centres, of which a `share` is kept; `steps` and
    learning rate `lr` of each classifier; a residual network on images (`residual`) or a perceptron on coordinates;
    their `seed`."""

    clusters: int
    share: float
    steps: int
    lr: float
    residual: bool
    seed: int


@dataclass(frozen=True)
class Bench:
    """What all arms against one model share: `synthetic` (N, *S) are the generated images that they label, `plain`
    (N_G, *S) the unguided samples of the seeds that are scored."""

    world: World
    target: Target
    synthetic: Tensor
    plain: Tensor
    recipe: Recipe
    measure: Measure


@dataclass(frozen=True)
class Found:
    """What an arm's N samples resemble at each of W weights.

    `hits` (W, N), the member copied in the high band, -1 for none; `bands` (W, 3, 3), copies, distinct members of the
    best matches and of all pairs in the bands low, mid and high; `alone` (W, 2, 2), copies and distinct members by the
    cosine alone and by L2 alone; `non_members` (W,), samples in the high band of a non-member; `tops` and `near`
    (W, 2, T) as in `Weights`. At the weight of the comparison: `l2_ratio` below 1/3 and `adaptive` distance at most 1,
    numbers of samples; `candidates` (3, 4), by how often a sample is repeated (`REPEATED`): groups, groups that copy a
    member, distinct members among them, groups that resemble a non-member.
    """

    hits: Tensor
    bands: Tensor
    alone: Tensor
    non_members: Tensor
    tops: Tensor
    near: Tensor
    l2_ratio: int
    adaptive: int
    candidates: Tensor


def beside(first: Found, second: Found) -> Found:
    """Both as one, the weights of the first before those of the second, whose weight of the comparison stays."""
    parts = ("hits", "bands", "alone", "non_members", "tops", "near")
    return replace(second, **{part: torch.cat([getattr(first, part), getattr(second, part)]) for part in parts})


def clustered(bench: Bench, run: Run) -> Clusters:
    """Clusters of the generated images, in features fitted to them alone, of as many components as scoring has."""
    recipe, world = bench.recipe, bench.world
    generated = coders(world)[1](bench.synthetic)
    kept = min(components(world), len(generated) - 1)
    return run.cached("clusters", _cluster, generated, kept, recipe.clusters, recipe.share, recipe.seed)


def _cluster(generated: Tensor, kept: int, k: int, share: float, seed: int) -> Clusters:
    return surrogates.cluster(features.half_whitened(generated, kept)(generated), k, share, seed=seed)


def surrogate(arm: str, bench: Bench, run: Run) -> Surrogate:
    """The images and labels of an arm's `surrogate`. Each function of `surrogates` is given what it may see alone."""
    world = bench.world
    z = coders(world)[0](world.members)
    match arm:
        case "OL-TD":
            return surrogates.teacher_labels(teacher(z, world.labels, world.classes, bench, run), bench.synthetic)
        case "RL-TD (training)":
            apart = teacher(z, torch.arange(len(z), device=z.device), len(z), bench, run)
            return surrogates.teacher_labels(apart, bench.synthetic, arm)
        case "RL-TD (oracle)":
            return surrogates.training_indices(z)
    groups = clustered(bench, run)
    labelled = surrogates.cluster_labels(bench.synthetic, groups, "CL-TI" if arm == "CL-TI" else "CL-TD")
    if arm != "RL-TD":
        return labelled
    generator = torch.Generator().manual_seed(bench.recipe.seed)
    return surrogates.random_labels(labelled.images, int(groups.kept.sum()), generator)


def teacher(z: Tensor, labels: Tensor, classes: int, bench: Bench, run: Run) -> nn.Module:
    """A classifier of clean members z (N, *S) with labels (N,), which never meets a noisy image."""
    recipe = bench.recipe
    build = partial(classifier, classes, False, spread_of(bench), recipe.residual, z[:0])
    return run.trained("teacher", build, _teach, z, labels, recipe.steps, recipe.lr, recipe.seed, seed=recipe.seed)


def _teach(net: nn.Module, z: Tensor, labels: Tensor, steps: int, lr: float, seed: int) -> nn.Module:
    return students.teach(net, z, labels, steps, lr=lr, seed=seed)


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
    timed = "-TI" not in given.arm
    build = partial(classifier, classes, timed, spread_of(bench), recipe.residual, bench.synthetic[:0])
    net = run.trained("student", build, _distil, given, recipe.steps, recipe.lr, recipe.seed, run, seed=recipe.seed)
    return net if timed else as_ddpm(net)


def _distil(net: nn.Module, given: Surrogate, steps: int, lr: float, seed: int, run: Run) -> nn.Module:
    folder = run.folder("student", code_fingerprint(__name__), net, given, steps, lr, seed)
    return students.distil(net, given, steps, lr=lr, levels=(0.0, 1.4), seed=seed, checkpoint=folder)


def guide(arm: str, given: Surrogate, bench: Bench, run: Run) -> Logits:
    """The classifier that guides an arm: a student of its surrogate, or the teacher itself, the paper's TI."""
    if ARMS[arm].student != "the teacher itself":
        return student(given, bench, run)
    world = bench.world
    return as_ddpm(teacher(coders(world)[0](world.members), world.labels, world.classes, bench, run))


def guided_samples(
    bench: Bench, net: Logits, labels: Tensor, weights: list[float], n: int, run: Run, own: bool = False
) -> Shards:
    """n samples under each of the weights, (n, W, *S) on disk.

    All weights of a start go through the sampler together, and start i has the same noise in every arm. It wants a
    label drawn by chance from `labels` (U,), or with `own` that of its unguided end.
    """
    target, like = bench.target, bench.target.like
    level = target.sigmas[-2]

    def draw(seeds: Tensor) -> Tensor:
        fresh = noise.seeded(seeds)
        x = target.sigmas[0] * fresh(like.new_empty(len(seeds), *like.shape[1:]))
        wanted = (
            own_labels(net, bench.plain[seeds.clamp_max(n - 1)], level)
            if own
            else uniform_labels(fresh, len(seeds), labels)
        )
        return sweep(target.denoiser, net, x, wanted, weights, target.sigmas)

    parts = (target, net, labels, weights, n, bench.plain[:n] if own else None)
    folder = run.folder("guided", code_fingerprint(__name__), *parts)
    # Starts at a time: each stands for as many rows as weights. Gradients in images take memory, in coordinates none.
    batch = min(n, max(1, 1250 // max(5 if bench.recipe.residual else 1, len(weights))))
    return stream(draw, n, folder, key=folder.name, batch=batch, title="attack")


def attack(arm: str, bench: Bench, weights: list[float], at: float, n: int, run: Run) -> Found:
    """Attack with one arm: n samples under each of `weights`, compared with members and non-members.

    `at` is the weight of the comparison, one of `weights`.
    """
    given = surrogate(ARMS[arm].surrogate, bench, run)
    net = guide(arm, given, bench, run)
    shards = guided_samples(bench, net, in_use(given.targets), weights, n, run, ARMS[arm].draw == "own")
    decode, judge = coders(bench.world)[1], judge_of(bench.world, bench.measure, run)

    def images(column: int) -> Iterator[Tensor]:
        return (decode(shard["images"][:, column].to(bench.target.like)) for shard in shards)

    return found(images, len(weights), weights.index(at), judge, bench.world)


def found(images: Callable[[int], Iterable[Tensor]], count: int, at: int, judge: Judge, world: World) -> Found:
    """`Found`, from the samples at each of `count` weights: `images(i)` gives those of weight number i, in batches
    (B, C, H, W). `at` is the number of the weight of the comparison."""
    encode, top = coders(world)[0], judge.edges["high"]
    flat, columns = encode(world.members).flatten(1), []
    for column in range(count):
        seen = judge.compare(images(column))
        n = len(seen.similarity)
        hits = {band: seen.hits(*ends) for band, ends in judge.bands.items()}
        every = pairs_in(images(column), judge)
        bands = [[int((hit >= 0).sum()), metrics.ums(hit, n).k, every[band]] for band, hit in hits.items()]
        alone = [[int((hit >= 0).sum()), metrics.ums(hit, n).k] for hit in map(seen.hits, judge.alone.values())]
        others = int(seen.resembles_others(top).sum())
        tops = [top_half(values) for values in (seen.similarity, -seen.distance)]
        columns.append((hits["high"].cpu(), torch.tensor(bands), torch.tensor(alone), torch.tensor(others), *tops))
        if column == at:
            chosen = seen
    rows, ratio, adaptive = [], 0, 0
    for batch in images(at):
        rows.append(judge.embed(batch))
        counts = by_distance(encode(batch).flatten(1), flat)
        ratio, adaptive = ratio + counts[0], adaptive + counts[1]
    lines = []
    for least in REPEATED:
        alike = metrics.cliques(torch.cat(rows), judge.alone["cosine"].similarity, least)
        first = metrics.medoids(torch.cat(rows), alike)
        right, wrong = chosen.hits(top)[first], chosen.resembles_others(top)[first]
        lines.append([len(first), int((right >= 0).sum()), metrics.ums(right, len(rows[0])).k, int(wrong.sum())])
    hits, bands, alone, others, tops, near = (torch.stack(column) for column in zip(*columns, strict=True))
    small = hits.to(torch.int16 if len(world.members) < 1 << 15 else torch.int32)
    return Found(small, bands, alone, others, tops, -near, ratio, adaptive, torch.tensor(lines))


def pairs_in(batches: Iterable[Tensor], judge: Judge) -> dict[str, int]:
    """Distinct members over all pairs of samples (B, C, H, W) and members in each band."""
    known, near = judge.embed(judge.members), {band: [] for band in judge.bands}
    lowest = judge.edges["low"].similarity
    for batch in batches:
        rows = judge.embed(batch)
        i, j = metrics.matches(rows, known, lowest)
        cosine = torch.cosine_similarity(rows[i], known[j])
        distance = (batch[i] - judge.members[j]).flatten(1).norm(dim=1)
        for band, (edges, above) in judge.bands.items():
            inside = edges.passed(cosine, distance)
            if above is not None:
                inside &= ~above.passed(cosine, distance)
            near[band].append(j[inside])
    return {band: len(torch.cat(members).unique()) for band, members in near.items()}


def top_half(values: Tensor) -> Tensor:
    """Means of the largest values (N,), for each of `TOPS`, among those of even and of odd number, (2, T); NaN where
    fewer than ten make one up."""
    means = torch.stack([metrics.top_means(values[half::2], TOPS) for half in (0, 1)]).double().cpu()
    few = torch.tensor([top * (len(values) // 2) < 10 for top in TOPS])
    return means.masked_fill(few, torch.nan)


def by_distance(rows: Tensor, members: Tensor) -> tuple[int, int]:
    """How many rows (B, D) have an l2-ratio below 1/3 to the members (M, D), and how many an adaptive distance of at
    most 1. Distances are taken where the model works."""
    ratio = metrics.l2_ratio(rows, members)
    adaptive = metrics.adaptive_l2(rows, members, min(50, len(members)))
    return int((ratio < 1 / 3).sum()), int((adaptive <= 1).sum())
