"""What guidance brings out of a model: SIDE without any label of the training images.

The attacker has the model alone. Its own samples are clustered, a classifier learns the clusters at all noise levels,
and its gradient guides further samples to the label that their unguided end would have. Chen et al. 2024. Chapter 2
calls this arm "CL-TD own": clusters are many and small, and a label drawn by chance would bring less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from memlib import features, metrics, nets, sample
from memlib.audit import copies, kept
from memlib.audit.sources import Model
from memlib.cache import fingerprint
from memlib.cache.store import folder
from memlib.errors import Refused
from memlib.features import Embed
from memlib.metrics import Count
from memlib.papers.side import attack, students, surrogates
from memlib.stored import Rows, choose, deviation

WEIGHTS = (0.0, 0.5, 1.0, 2.0)  # lambda of SIDE eq. 10; 0 is the unguided control
SAMPLES = 200  # starts, each of which is sampled once for each weight: the budget of this attack
_STEPS = 1000  # of the classifier
_MEMBERS = 4  # samples of a cluster, on average
_MOST = 1500  # clusters
_COMPONENTS = 32  # of the samples that are clustered
_SMALL = 1024  # coordinates up to which the classifier is a perceptron: it learns many small clusters sooner


@dataclass(frozen=True)
class Extraction:
    """Copies among N guided samples, and among the same starts without guidance.

    The weight of each half of the starts is the best one of the other half, so that choosing it does not raise the
    counts.

    Attributes:
        copies: k of N samples.
        distinct: training images among them.
        unguided: k of N at weight 0, and
        unguided_distinct: training images among these.
        more: how many more distinct images guidance brought, and its 95 % interval over the starts.
        weights: the weight of each half, (2,).
        rates: of copies, those of `WEIGHTS`, in order, over all starts.
        arm: how the labels were made.
    """

    copies: Count
    distinct: int
    unguided: Count
    unguided_distinct: int
    more: tuple[int, tuple[float, float]]
    weights: tuple[float, float]
    rates: list[float]
    arm: str


def extract(
    model: Model,
    made: Rows,
    train: Rows,
    group: Tensor,
    found: copies.Found,
    embed: Embed,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Extraction:
    """Guide `SAMPLES` starts at each of `WEIGHTS`, and count copies at the thresholds of the unguided samples.

    Arguments:
        model: what is audited.
        made: its own samples (N, C, H, W); the classifier is trained on them.
        train: training images (T, C, H, W), which only the count sees.
        group: (T,), the first copy of each.
        found: the judged samples, for their thresholds.
        embed: the descriptor, (N, C, H, W) -> (N, D).
        seed: of the starts and the classifier.
        device: of the model.

    Raises:
        Refused: for fewer than 16 samples, which make no clusters.
    """
    if len(made) < 16:
        raise Refused(f"extraction clusters the samples of the model, and {len(made)} are too few: draw 16 or more")
    name = kept.name_of(model)
    classifier, arm = _classifier(kept.points(model, made, device), seed, device)
    lowest = model.sigmas[model.sigmas > 0].min().float()

    def draw(positions: Tensor) -> Tensor:
        x = sample.start(model.sigmas, positions + (seed + 1) * 10**9, model.shape, device=device, dtype=torch.float32)
        ends = sample.ancestral(model.denoiser, x, model.sigmas)
        labels = attack.own_labels(classifier, ends, lowest)
        guided = attack.sweep(model.denoiser, classifier, x, labels, WEIGHTS, model.sigmas)
        return torch.stack([model.images(one) for one in guided.unbind(1)], 1).cpu()

    drawn = kept.on_disk("guided samples", draw, SAMPLES, name, made, arm, WEIGHTS, seed, dtype=torch.uint8)
    alone = choose(train, group.unique())
    known, hits = embed(alone), []
    for place in range(len(WEIGHTS)):
        images = drawn.map(lambda part, place=place: part[:, place])
        hits.append(copies.hits(images, embed(images), alone, known, found))
    return judged(torch.stack(hits), WEIGHTS, arm)


def judged(hits: Tensor, weights: Sequence[float], arm: str = "CL-TD") -> Extraction:
    """Choose the weight of each half of N starts on the other half, and count.

    Arguments:
        hits: (W, N), the training image that sample i of each weight copies, or -1.
        weights: (W,) numbers, the first 0.
        arm: how the labels were made.
    """
    halves = [torch.arange(half, hits.shape[1], 2) for half in (0, 1)]
    guided, chosen = hits[0].clone(), []
    for own, other in (halves, halves[::-1]):
        scores = [(_distinct(row), _count(row).k) for row in hits[1:, other]]
        best = 1 + scores.index(max(scores))
        guided[own] = hits[best, own]
        chosen.append(float(weights[best]))
    return Extraction(
        copies=_count(guided),
        distinct=_distinct(guided),
        unguided=_count(hits[0]),
        unguided_distinct=_distinct(hits[0]),
        more=metrics.unique_difference(guided, hits[0]),
        weights=(chosen[0], chosen[1]),
        rates=[_count(row).rate for row in hits],
        arm=arm,
    )


def _count(hits: Tensor) -> Count:
    return Count(int((hits >= 0).sum()), len(hits))


def _distinct(hits: Tensor) -> int:
    return len(hits[hits >= 0].unique())


def _classifier(made: Rows, seed: int, device: str) -> tuple[nn.Module, str]:
    """A classifier of the clusters of samples (N, *S), at all levels, and its arm: random labels without clusters."""
    classes = max(2, min(_MOST, len(made) // _MEMBERS))
    rows = features.latents(made, _COMPONENTS)[0](made)
    rows /= rows.std(0).sqrt()  # half-whitened
    try:
        surrogate = surrogates.cluster_labels(made, surrogates.cluster(rows, classes, seed=seed))
    except Refused:  # no cluster is tighter than shuffled ones
        surrogate = surrogates.random_labels(made, classes, torch.Generator().manual_seed(seed))
    surrogate = replace(surrogate, targets=surrogate.targets.to(device))
    shape, known, spread = tuple(made.shape[1:]), surrogate.targets.shape[1], deviation(made)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nets.LabelMLP(known, shape) if math.prod(shape) <= _SMALL else nets.ResNet(known, shape[0])
        student = nets.Classifier(net, spread).to(device)
    key = fingerprint("classifier", surrogate.images, surrogate.targets, _STEPS, seed)
    levels = (math.log(spread), 1.2)
    place = folder() / "audit" / key[:32]
    return students.distil(student, surrogate, _STEPS, levels=levels, seed=seed, checkpoint=place), surrogate.arm
