"""The arms side by side: on the first network in full, on further networks by their copies."""

from collections.abc import Iterator

import torch
from torch import Tensor

from memlib import metrics, noise
from memlib.cache import Shards
from memlib.features import Embed
from memlib.metrics import Count
from memlib.noise import noise_from
from memlib.papers.side.attack import Similarities
from memlib.papers.side.guidance import Logits, accuracy, agreement_on_points
from memlib.papers.side.study.arms import (
    ARMS,
    Bench,
    Found,
    Recipe,
    by_distance,
    clustered,
    found,
    guided_samples,
    student,
    surrogate,
)
from memlib.papers.side.study.judge import Judge, Measure, judge_of
from memlib.papers.side.study.model import (
    ROWS,
    SYNTHETIC,
    Network,
    Target,
    Training,
    trained,
    unguided,
)
from memlib.papers.side.study.results import Arms, Labels
from memlib.papers.side.study.world import World, coders
from memlib.papers.side.surrogates import Surrogate
from memlib.random import keyed
from memlib.run import Run

COMPARED = ("OL-TD", "CL-TD", "OL-TI", "RL-TD (training)")  # arms on every network
_CLOSE = 1e-3  # standard deviations of the members within which an image is a training image


def measure_labels(bench: Bench, run: Run) -> Labels:
    """What each arm's student is shown, and how good the students with and without time are, level by level."""
    given = {arm: surrogate(arm, bench, run) for arm in ARMS}
    z = coders(bench.world)[0](bench.world.members)
    sigmas = bench.target.sigmas
    sigmas = sigmas[(sigmas > 0.1) & (sigmas < 8)][::4]
    both = {"with time": given["OL-TD"], "without": given["OL-TI"]}
    quality = {name: judged(student(one, bench, run), one, bench, sigmas, run.seed) for name, one in both.items()}
    return Labels(
        classes={arm: one.targets.shape[1] for arm, one in given.items()},
        images={arm: len(one.images) for arm, one in given.items()},
        sees={arm: one.sees for arm, one in given.items()},
        shown={arm: shows_a_member(one, z) for arm, one in given.items()},
        clusters=str(clustered(bench, run)),
        sigmas=sigmas,
        **{part: {name: one[part] for name, one in quality.items()} for part in ("accuracy", "cosine", "length")},
    )


def shows_a_member(given: Surrogate, z: Tensor) -> bool:
    """Whether a training image z (N, *S) is among the images that a student is distilled on."""
    near = (torch.cdist(part.flatten(1), z.flatten(1)).amin() for part in given.images.split(500))
    return bool(min(near) < _CLOSE * z.std())


def judged(net: Logits, given: Surrogate, bench: Bench, sigmas: Tensor, seed: int) -> dict[str, Tensor]:
    """Accuracy on noised non-members, and the guidance against the exact one on the generated images, at each of
    `sigmas` (L,), (L,) each.

    Generated images are a finite set, so the exact denoisers of all and of each label (the teacher's first choice) are
    closed forms, and their difference is the direction of Bayes' rule. Without labels of non-members, members are used.
    """
    world = bench.world
    images, truth = world.non_members, world.fresh_labels
    if truth is None:
        images, truth = world.members, world.labels
    fresh = coders(world)[0](images)
    counts = accuracy(net, fresh, truth, sigmas, noise.seeded(range(len(fresh))))
    said = given.targets.argmax(1)
    pull = agreement_on_points(net, given.images, said, sigmas, noise_from(keyed(seed, 0)))
    return {
        "accuracy": torch.tensor([count.rate for count in counts]),
        "cosine": torch.tensor([one.cosine for one in pull]),
        "length": torch.tensor([one.length for one in pull]),
    }


def compare_arms(
    world: World,
    plain: Found,
    arms: dict[str, Found],
    columns: dict[str, int],
    weight: float,
    judge: Judge,
    others: list[dict[str, Tensor]],
) -> Arms:
    """`Arms` of the first network and of `others`; `columns` says which of an arm's weights is the compared one.

    `plain` are the first N unguided samples, for the arm Random; `others` are hits (N,) by arm.
    """
    encode = coders(world)[0]
    fresh = by_distance(encode(world.non_members).flatten(1), encode(world.members).flatten(1))
    every, columns = {"Random": plain} | arms, {"Random": 0} | columns
    seen = {name: similarities_at(one, columns[name]) for name, one in every.items()}
    top, n = judge.edges["high"], len(seen["Random"].similarity)
    bands = {}
    for name, one in seen.items():
        hits = {band: one.hits(*ends) for band, ends in judge.bands.items()}
        pairs = every[name].pairs
        bands[name] = {band: [int((hit >= 0).sum()), metrics.ums(hit, n).k, pairs[band]] for band, hit in hits.items()}
    return Arms(
        weight=weight,
        hits=[{name: one.hits(top).int() for name, one in seen.items()}, *others],
        bands=bands,
        non_members={name: int((one.to_non_members >= top).sum()) for name, one in seen.items()},
        l2_ratio={"non-members": Count(fresh[0], len(world.non_members))}
        | {name: Count(one.l2_ratio, n) for name, one in every.items()},
        adaptive={"non-members": Count(fresh[1], len(world.non_members))}
        | {name: Count(one.adaptive, n) for name, one in every.items()},
        candidates={name: one.candidates for name, one in every.items()},
    )


def similarities_at(one: Found, column: int) -> Similarities:
    """The similarities (N,) of an arm at one of its weights."""
    return Similarities(one.similarity[column], one.nearest[column], one.to_non_members[column])


def measure_plain(shards: Shards, seen: Similarities, target: Target, judge: Judge, world: World) -> Found:
    """The first unguided samples of `shards` as an arm without guidance: as many as `seen` has similarities, (N,)."""
    decode, n = coders(world)[1], len(seen.similarity)

    def batches() -> Iterator[Tensor]:
        for i, shard in enumerate(shards):
            if i * ROWS < n:
                yield decode(shard["images"].to(target.like))[: n - i * ROWS]

    return found([seen], 0, batches(), judge, world)


def attack_another(
    number: int,
    world: World,
    network: Network,
    how: Training,
    recipe: Recipe,
    measure: Measure,
    sizes: dict[str, int],
    weight: float,
    run: Run,
) -> dict[str, Tensor]:
    """Train another network from seed `number` and attack it: the member that each sample copies, (N,) by arm.

    `sizes` holds n_samples and n_synthetic. Arms are compared within one network; other networks tell whether the
    comparison was luck.
    """
    z, decode = coders(world)[0](world.members), coders(world)[1]
    target = trained(z, network, how, number, run)
    made = torch.cat([unguided(target, part) for part in (SYNTHETIC + torch.arange(sizes["n_synthetic"])).split(ROWS)])
    bench, judge = Bench(world, target, made, recipe, measure), judge_of(world, measure, run)
    plainly = torch.cat([unguided(target, part) for part in torch.arange(sizes["n_samples"]).split(ROWS)])
    hits = {"Random": _copied(plainly, decode, judge)}
    for arm in COMPARED:
        given = surrogate(arm, bench, run)
        net = student(given, bench, run)
        shards = guided_samples(target, net, given.targets.shape[1], [weight], sizes["n_samples"], run)
        seen = judge.compare(decode(shard["images"][:, 0].to(target.like)) for shard in shards)
        hits[arm] = seen.hits(judge.edges["high"]).cpu().int()
    return hits


def _copied(z: Tensor, decode: Embed, judge: Judge) -> Tensor:
    return judge.compare(decode(z)).hits(judge.edges["high"]).cpu().int()
