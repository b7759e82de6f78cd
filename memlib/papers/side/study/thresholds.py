"""Which similarity means a copy: descriptors tried on planted copies, thresholds set on held-out images."""

import torch

from memlib import features
from memlib.papers.side.attack import Similarities
from memlib.papers.side.study.judge import Judge, Measure, descriptors, seen_by_the_model
from memlib.papers.side.study.results import Thresholds
from memlib.papers.side.study.world import World
from memlib.run import Run


def measure_thresholds(world: World, judge: Judge, measure: Measure, plain: Similarities, run: Run) -> Thresholds:
    """Thresholds and what passes them. `plain` are the similarities (N,) of unguided samples."""
    top = judge.edges["high"]
    return Thresholds(
        descriptor=measure.descriptor,
        members=len(world.members),
        edges=judge.edges,
        fractions=judge.fractions,
        null=judge.null.cpu(),
        check=judge.check.cpu(),
        planted=planted_copies(world, measure, run),
        plain=plain.similarity.cpu(),
        copied=(plain.similarity >= top).cpu(),
        copied_non_members=(plain.to_non_members >= top).cpu(),
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
