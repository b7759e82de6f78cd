"""The arms side by side, in every network; and how good the classifiers are that guide them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from memlib import metrics, noise
from memlib.metrics import Count
from memlib.noise import noise_from
from memlib.papers.side.guidance import Logits, accuracy, agreement_on_points
from memlib.papers.side.study.arms import (
    ARMS,
    Bench,
    Found,
    by_distance,
    clustered,
    found,
    guide,
    surrogate,
)
from memlib.papers.side.study.judge import judge_of
from memlib.papers.side.study.model import ROWS
from memlib.papers.side.study.results import Arms, Labels
from memlib.papers.side.study.world import World, coders
from memlib.papers.side.surrogates import Surrogate
from memlib.random import keyed
from memlib.run import Run

BANDS = ("low", "mid", "high")
_CLOSE = 1e-3  # standard deviations of the members within which an image is a training image


def measure_labels(bench: Bench, run: Run) -> Labels:
    """What each arm's student is shown, and how good the classifiers with and without time are, level by level."""
    given = {arm: surrogate(one.surrogate, bench, run) for arm, one in ARMS.items()}
    z = coders(bench.world)[0](bench.world.members)
    sigmas = bench.target.sigmas
    sigmas = sigmas[(sigmas > 0.1) & (sigmas < 8)][::4]
    both = {"with time": "OL-TD", "without": "OL-TI"}
    quality = {
        name: judged(guide(arm, given[arm], bench, run), given[arm], bench, sigmas, run.seed)
        for name, arm in both.items()
    }
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
    pull = agreement_on_points(net, given.images[:], said, sigmas, noise_from(keyed(seed, 0)))
    return {
        "accuracy": torch.tensor([count.rate for count in counts]),
        "cosine": torch.tensor([one.cosine for one in pull]),
        "length": torch.tensor([one.length for one in pull]),
    }


def measure_plain(bench: Bench, run: Run) -> Found:
    """The unguided samples of a bench as an arm without guidance."""
    decode, judge = coders(bench.world)[1], judge_of(bench.world, bench.measure, run)

    def images(_: int) -> Iterator[Tensor]:
        return (decode(part) for part in bench.plain.split(ROWS))

    return found(images, 1, 0, judge, bench.world)


def compare_arms(
    data: str, world: World, networks: list[dict[str, Found]], columns: dict[str, int], weights: dict[str, float]
) -> Arms:
    """`Arms` of the networks, the first of which is `world`'s; `columns` says which of an arm's weights is compared."""
    encode, first = coders(world)[0], networks[0]
    fresh = by_distance(encode(world.non_members).flatten(1), encode(world.members).flatten(1))
    n = first["Random"].hits.shape[1]

    def at(name: str, values: Tensor) -> Tensor:
        return values[columns.get(name, 0)]

    return Arms(
        data=data,
        members=len(world.members),
        weights=weights,
        hits=[{name: at(name, one.hits) for name, one in network.items()} for network in networks],
        bands=[
            {name: dict(zip(BANDS, at(name, one.bands).tolist(), strict=True)) for name, one in network.items()}
            for network in networks
        ],
        alone=[
            {
                name: dict(zip(("cosine", "L2"), at(name, one.alone).tolist(), strict=True))
                for name, one in network.items()
            }
            for network in networks
        ],
        non_members={name: int(at(name, one.non_members)) for name, one in first.items()},
        l2_ratio={"non-members": Count(fresh[0], len(world.non_members))}
        | {name: Count(one.l2_ratio, n) for name, one in first.items()},
        adaptive={"non-members": Count(fresh[1], len(world.non_members))}
        | {name: Count(one.adaptive, n) for name, one in first.items()},
        candidates={name: one.candidates for name, one in first.items()},
    )


def gains(arms: Arms, one: str, other: str) -> tuple[list[float], list[float]]:
    """In each network, the AMS of an arm less that of another, and its distinct members less those of the other, as
    fractions of the members."""
    rates, distinct = [], []
    for hits in arms.hits:
        a, b = hits[one], hits[other]
        rates.append(float((a >= 0).double().mean() - (b >= 0).double().mean()))
        distinct.append((metrics.ums(a, len(a)).k - metrics.ums(b, len(b)).k) / arms.members)
    return rates, distinct
