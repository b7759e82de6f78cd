"""Which resemblance means a copy: descriptors tried on planted copies, thresholds set on held-out images."""

import torch

from memlib import features
from memlib.metrics import Count
from memlib.papers.side.attack import Similarities
from memlib.papers.side.study.judge import Judge, Measure, descriptors, seen_by_the_model
from memlib.papers.side.study.results import Held, Thresholds
from memlib.papers.side.study.world import World
from memlib.run import Run


def measure_thresholds(
    world: World,
    judge: Judge,
    measure: Measure,
    plain: Similarities,
    held: list[Held],
    planted: dict[str, dict[str, int]],
) -> Thresholds:
    """Thresholds of the first network and what passes them; `held` of every network. `plain` (N,) are unguided samples,
    `planted` the copies that `planted_copies` counts."""
    return Thresholds(
        descriptor=measure.descriptor,
        members=len(world.members),
        edges=judge.edges,
        alone=judge.alone,
        fractions=judge.fractions,
        null=judge.null.similarity.cpu(),
        null_distance=judge.null.distance.cpu(),
        check=judge.check.similarity.cpu(),
        check_distance=judge.check.distance.cpu(),
        planted=planted,
        plain=plain.similarity.cpu(),
        plain_distance=plain.distance.cpu(),
        held=held,
    )


def held_out(judge: Judge, plain: Similarities) -> Held:
    """Non-members past each edge, and unguided samples (N,) in the high band of a member and of a non-member."""
    check, top, n = judge.check, judge.edges["high"], len(plain.similarity)
    passed = {
        band: Count(int((check.hits(edges) >= 0).sum()), len(check.similarity)) for band, edges in judge.edges.items()
    }
    return Held(
        passed,
        dict(judge.fractions),
        Count(int((plain.hits(top) >= 0).sum()), n),
        Count(int(plain.resembles_others(top).sum()), n),
    )


def planted_copies(world: World, measure: Measure, run: Run) -> dict[str, dict[str, int]]:
    """By descriptor and kind, how many planted copies of members are traced to their source.

    The threshold of each descriptor is one that a stated fraction of held-out images reaches. Copies are of the kinds
    that a model makes and of those that copy detection is used to.
    """
    seen = seen_by_the_model(world)
    fpr = measure.fpr or max(0.01, 1 / len(world.calibration))
    planted = features.planted(seen["members"], torch.Generator().manual_seed(run.seed))
    table = {}
    for name, embed in descriptors(world, seen["reference"], measure, run).items():
        traced = features.recall(embed, seen["members"], seen["calibration"], planted, fpr)
        table[name] = {kind: count.k for kind, count in traced.items()}
    return table
