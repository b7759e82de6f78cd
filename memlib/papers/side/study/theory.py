"""Theorem 1 beside the attack: the ratio that it gives to a labelling, and what guidance by that labelling copies."""

import torch
from torch import Tensor

from memlib import metrics, noise, sample
from memlib.features import half_whitened
from memlib.papers.side import surrogates
from memlib.papers.side.attack import in_use
from memlib.papers.side.study.arms import Bench, guided_samples, student, teacher
from memlib.papers.side.study.judge import components, judge_of
from memlib.papers.side.study.results import Theory
from memlib.papers.side.study.world import coders
from memlib.run import Run

REAL = "real labels"


def labellings(bench: Bench, sizes: list[int]) -> dict[str, Tensor]:
    """Labels (N,) of the members by name: the real ones, one for each member, and for each of `sizes`, the members of a
    class on average, clusters and random labels."""
    world, seed = bench.world, bench.recipe.seed
    n, known = len(world.members), half_whitened(world.reference, components(world))(world.members)
    found = {REAL: world.labels, "one each": torch.arange(n, device=world.labels.device)}
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(world.labels.device)
    for size in sizes:
        k = max(2, n // size)
        found[f"clusters of {size}"] = surrogates.partition(known, k, seed)
        found[f"random {size}"] = order % k
    return found


def ratio(z: Tensor, labels: Tensor) -> float:
    """The limit of theorem 1, SIDE eq. 50, over all classes: how much a label lowers the measure, in the mean.

    Numerator and denominator of eq. 50 are sums over the points of a class; here both are summed over the classes. z
    (N, *S) are the members' coordinates, labels (N,). 1 says nothing, 0 names each point.
    """
    rows, every = z.flatten(1).double(), labels.unique()
    mean, trace = rows.mean(0), rows.var(0, correction=0).sum()
    own = whole = 0.0
    for label in every:
        inside = rows[labels == label]
        centre = inside.mean(0)
        own += float((inside - centre).square().sum() + len(inside) * inside.var(0, correction=0).sum())
        whole += float((inside - mean).square().sum() + len(inside) * trace)
    return own / whole


def spread(bench: Bench) -> Tensor:
    """The nuclear norm of the covariance of each class over that of all members (C,), proposition 1 of SIDE.

    Measured on the latents that the model itself gives the members: its probability flow run upwards from sigma 0.02 to
    2. Covariances are unbiased, since a class has few members; classes of one member have none and are left out.
    """
    world, denoiser = bench.world, bench.target.denoiser
    z = coders(world)[0](world.members)
    noised = z + 0.02 * noise.seeded(range(len(z)))(z)
    with torch.no_grad():
        latents = sample.encode(denoiser, noised, noise.karras(40, 0.02, 2.0)[:-1]).flatten(1).double()
    whole = latents.var(0).sum()  # the nuclear norm of a covariance is its trace
    classes = [latents[world.labels == label] for label in world.labels.unique()]
    found = [one.var(0).sum() / whole for one in classes if len(one) > 1]
    return torch.stack(found).cpu() if found else torch.empty(0, dtype=torch.float64)


def of_labelling(bench: Bench, labels: Tensor, n: int, weight: float, run: Run) -> tuple[float, int, int, int]:
    """The ratio of theorem 1 of labels (N,), classes, copies and distinct members of n samples guided at `weight`.

    A teacher learns the labels of the members, and a student its labels on generated images: all labellings are treated
    alike. Each start wants a label drawn from those in use.
    """
    world, judge = bench.world, judge_of(bench.world, bench.measure, run)
    encode, decode = coders(world)
    z, classes = encode(world.members), int(labels.max()) + 1
    learnt = teacher(z, labels, max(2, classes), bench, run)
    apart = len(labels.unique()) == len(labels)  # an arm's labels too: its student and its samples are found
    given = surrogates.teacher_labels(learnt, bench.synthetic, "RL-TD (training)" if apart else "OL-TD")
    shards = guided_samples(bench, student(given, bench, run), in_use(given.targets), [weight], n, run)
    seen = judge.compare(decode(shard["images"][:, 0].to(bench.target.like)) for shard in shards)
    hits = seen.hits(judge.edges["high"])
    return ratio(z, labels), len(labels.unique()), int((hits >= 0).sum()), metrics.ums(hits, n).k


def measure_theory(
    benches: list[Bench], found: list[dict[str, tuple[float, int, int, int]]], n: int, weight: float, plain: list[int]
) -> Theory:
    """`Theory` from `of_labelling` of some benches, by name; `plain` are the copies of n unguided samples of each."""
    ratios = [{name: values[0] for name, values in one.items()} for one in found]
    classes, copies, distinct = (
        [{name: int(values[place]) for name, values in one.items()} for one in found] for place in (1, 2, 3)
    )
    return Theory(n, weight, ratios, classes, copies, distinct, plain, [spread(bench) for bench in benches])
