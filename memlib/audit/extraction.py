"""What guidance brings out of a model: SIDE without any label of the training images.

The attacker has the model alone. Its own samples are clustered, a classifier learns the clusters at all noise levels,
and its gradient guides further samples to the label that their unguided end would have. Chen et al. 2024.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlib import nets, sample
from memlib.audit import copies, kept
from memlib.audit.sources import Model
from memlib.errors import Refused
from memlib.features import Embed
from memlib.metrics import Count
from memlib.papers.side import attack, students, surrogates

WEIGHTS = (0.0, 2.0, 8.0)  # lambda of SIDE eq. 10; 0 is the unguided control
SAMPLES = 96  # starts, each of which is sampled once for each weight: the budget of this attack
_STEPS = 300  # of the classifier


@dataclass(frozen=True)
class Extraction:
    """Copies among guided samples of the best weight, and among the same starts without guidance.

    Attributes:
        copies: k of n samples at
        weight: the weight that brought most. The rates of all weights are in
        rates: (W,), those of `WEIGHTS`, in order.
        unguided: k of n at weight 0.
        arm: how the labels were made.
    """

    copies: Count
    weight: float
    rates: list[float]
    unguided: Count
    arm: str


def extract(
    model: Model,
    made: Tensor,
    train: Tensor,
    group: Tensor,
    found: copies.Found,
    embed: Embed,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Extraction:
    """Guide `SAMPLES` starts at each of `WEIGHTS`, and count copies at the thresholds of the unguided samples.

    Arguments:
        model: what is attacked.
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
    seen = kept.points(model, made, device)
    classifier, surrogate = _classifier(seen, seed)
    classifier = classifier.to(device)
    wanted = attack.in_use(surrogate.targets)

    def draw(positions: Tensor) -> Tensor:
        x = sample.start(model.sigmas, positions + (seed + 1) * 10**9, model.shape, device=device, dtype=torch.float32)
        labels = attack.uniform_labels(kept.fresh(positions, seed + 2), len(positions), wanted).to(device)
        ends = attack.sweep(model.denoiser, classifier, x, labels, WEIGHTS, model.sigmas)
        return torch.stack([model.images(arm) for arm in ends.unbind(1)], 1).cpu()

    drawn = kept.rows("guided samples", draw, SAMPLES, kept.name_of(model), made, surrogate.arm, WEIGHTS, seed)
    counts = []
    for arm in range(len(WEIGHTS)):
        hit = copies.passed(drawn[:, arm], train[group.unique()], found, embed)
        counts.append(Count(int(hit.sum()), len(hit)))
    best = max(range(1, len(WEIGHTS)), key=lambda arm: counts[arm].k)
    return Extraction(counts[best], WEIGHTS[best], [one.rate for one in counts], counts[0], surrogate.arm)


def _classifier(made: Tensor, seed: int) -> tuple[nn.Module, surrogates.Surrogate]:
    """A classifier of the clusters of the samples (N, *S), at all levels; of random labels where there are none."""
    classes = max(2, min(20, len(made) // 8))
    rows = (made - made.mean(0)).flatten(1)
    try:
        surrogate = surrogates.cluster_labels(made, surrogates.cluster(rows, classes, seed=seed))
    except Refused:  # no cluster is tighter than shuffled ones
        surrogate = surrogates.random_labels(made, classes, torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nets.ResNet(surrogate.targets.shape[1], made.shape[1])
        student = nets.Classifier(net, float(made.std()))
    levels = (math.log(float(made.std())), 1.2)
    return students.distil(student, surrogate, _STEPS, levels=levels, seed=seed), surrogate
