"""SIDE: extract training images from an unconditional model by guidance with a surrogate classifier. Chen et al. 2024.

`sweep` draws samples at many guidance weights at once. `similarities` looks for the training images in them. Labels and
classifier come from `surrogates` and `students`, thresholds from held-out images (`metrics.joint_threshold`).

    fresh = noise.seeded(seeds)
    x = sigmas[0] * fresh(torch.empty(len(seeds), *shape))
    labels = uniform_labels(fresh, len(seeds), in_use(surrogate.targets))  # or own_labels(classifier, unguided, sigma)
    found = similarities(sweep(denoiser, classifier, x, labels, [0, 4, 8], sigmas)[:, 1], embed, members, non_members)
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memlib import metrics, sample
from memlib.denoiser import Denoiser, gradient, guided
from memlib.errors import Refused
from memlib.features import Embed
from memlib.metrics import Joint
from memlib.noise import Noise, expand_sigma
from memlib.papers.side import Logits, log_p
from memlib.random import to_device


def in_use(targets: Tensor) -> Tensor:
    """The labels that a surrogate ever gives to its images, ascending, (U,), from its targets (N, K).

    A label that no generated image bears aims at nothing. An attacker sees which these are: the images are generated.
    """
    return targets.argmax(1).unique()


def uniform_labels(noise: Noise, n: int, labels: int | Tensor) -> Tensor:
    """Draw a label for each of n samples, (n,) integers, uniform on `labels`. SIDE sec. 3.3.3.

    Labels come from the noise of the samples themselves, so sample i wants the same label in every arm with the same
    labels.

    Arguments:
        noise: `noise.seeded` of the samples' seeds.
        n: number of samples.
        labels: those to draw from, (U,), such as `in_use`; a number U stands for 0 .. U - 1.

    Raises:
        Refused: for no label to draw from.
    """
    chosen = torch.arange(labels) if isinstance(labels, int) else labels
    if len(chosen) < 1:
        raise Refused(f"labels are drawn among at least one label, not {len(chosen)}")
    uniform = torch.special.ndtr(noise(torch.empty(n, 1, dtype=torch.float64)))[:, 0]
    place = (uniform * len(chosen)).long().clamp_max(len(chosen) - 1)
    return chosen[to_device(place, chosen.device)]


@torch.no_grad()
def own_labels(classifier: Logits, endpoints: Tensor, sigma: float | Tensor) -> Tensor:
    """The label that the classifier gives to the unguided end of each sample, (N,); not in the paper.

    A label drawn by chance can pull a sample away from the image that it would have become. The label of its own end
    keeps the destination. It costs one unguided pass more and needs nothing but the model.

    Arguments:
        classifier: (x, sigma) -> logits (B, K), the one that will guide.
        endpoints: unguided samples of the same starts, (N, *S).
        sigma: the level at which they are read, a small one.
    """
    level = torch.as_tensor(sigma, dtype=endpoints.dtype, device=endpoints.device)
    return torch.cat([classifier(rows, level).argmax(1) for rows in endpoints.split(1024)])


@torch.no_grad()
def sweep(
    denoiser: Denoiser,
    classifier: Logits,
    x: Tensor,
    labels: Tensor,
    weights: Sequence[float] | Tensor,
    sigmas: Tensor,
) -> Tensor:
    """Sample every start under every guidance weight by DDIM, in one batch. SIDE eq. 9-10.

    Before the first step all copies of a start are equal, so each network runs once for each start. Afterwards rows of
    weight 0 skip the classifier. They are the unguided samples, equal bit for bit to those of `sweep` with any other
    weights in the same number of rows.

    Arguments:
        x: starts (B, *S) at noise level sigmas[0].
        labels: the label that each start is guided to, (B,).
        weights: lambda of eq. 10, (W,): the exponent of the power prior p(y | x)^lambda, which replaces a calibrated
            classifier.
        sigmas: decreasing noise levels (n + 1,), the last 0.

    Returns:
        Samples (B, W, *S).

    Raises:
        Refused: for weights that are not (W,) and for another number of labels than starts.
    """
    weights = torch.as_tensor(weights).to("cpu", x.dtype)  # where asking which are 0 does not wait for a GPU
    if weights.dim() != 1 or len(weights) < 1 or len(labels) != len(x):
        given = f"weights {tuple(weights.shape)} and {len(labels)} labels"
        raise Refused(f"a sweep needs weights (W,) and a label for each of {len(x)} starts, not {given}")
    count, labels, pushed = len(weights), to_device(labels, x.device), bool(weights.any())
    each = to_device(weights, x.device).view(1, count, *[1] * (x.dim() - 1))
    steered = _steered(denoiser, classifier, labels.repeat_interleave(count), weights.repeat(len(x)))
    steps = itertools.count()

    def shared_first(states: Tensor, sigma: Tensor) -> Tensor:
        if next(steps):
            return steered(states, sigma)
        plain = denoiser(x, sigma)
        push = _push(classifier, x, labels, sigma) if pushed else torch.zeros_like(x)
        # Not 0 * push, which is NaN where a gradient overflows.
        added = torch.where(each == 0, torch.zeros_like(x)[:, None], each * push[:, None])
        return (plain[:, None] + added).flatten(0, 1)  # (B W, *S)

    return sample.ancestral(shared_first, x.repeat_interleave(count, 0), sigmas).unflatten(0, (len(x), count))


def _steered(denoiser: Denoiser, classifier: Logits, labels: Tensor, weights: Tensor) -> Denoiser:
    """`guided`, with the classifier on the rows of other weight than 0 alone; labels (B,), weights (B,) on the CPU."""
    rows = weights.nonzero()[:, 0]
    if len(rows) in (0, len(weights)):
        return guided(denoiser, log_p(classifier, labels), weights)
    factors, rows = to_device(weights[rows], labels.device), to_device(rows, labels.device)

    def steered(x: Tensor, sigma: Tensor) -> Tensor:
        push = _push(classifier, x[rows], labels[rows], sigma[rows] if sigma.dim() else sigma)
        push *= factors.view(-1, *[1] * (x.dim() - 1))
        return denoiser(x, sigma).index_add(0, rows, push)

    return steered


def _push(classifier: Logits, x: Tensor, labels: Tensor, sigma: Tensor) -> Tensor:
    """sigma^2 grad log p(y | x, sigma), (B, *S): the term that guidance at weight 1 adds to a denoiser."""
    return expand_sigma(sigma, x) ** 2 * gradient(log_p(classifier, labels), x, sigma)


class Similarities(NamedTuple):
    """How N samples resemble training images: the cosine `similarity` (N,) to the `nearest` member, whose index is in
    (N,), and the L2 `distance` (N,) of the images themselves to that member; `to_non_members` and `from_non_members`
    (N,) are the same of the nearest image that no model saw.
    """

    similarity: Tensor
    distance: Tensor
    nearest: Tensor
    to_non_members: Tensor
    from_non_members: Tensor

    def hits(self, edges: Joint, above: Joint | None = None) -> Tensor:
        """The index of the member that each sample copies, -1 for none, (N,). A copy passes `edges`, and not `above`
        if that is given: a band ends where the next begins."""
        passed = edges.passed(self.similarity, self.distance)
        if above is not None:
            passed &= ~above.passed(self.similarity, self.distance)
        return self.nearest.where(passed, torch.full_like(self.nearest, -1))

    def resembles_others(self, edges: Joint) -> Tensor:
        """Which samples would pass for copies of a non-member, (N,) bool."""
        return edges.passed(self.to_non_members, self.from_non_members)


def similarities(
    samples: Tensor | Iterable[Tensor], embed: Embed, members: Tensor, non_members: Tensor
) -> Similarities:
    """Find the nearest member of each sample by the cosine of features, and how far that member is in L2.

    The distance is to the same member, so that the two measures speak of one image.

    Arguments:
        samples: images (N, C, H, W), or batches of them as they come from disk.
        embed: images (N, C, H, W) -> features (N, D).
        members: training images (M, C, H, W).
        non_members: images of the same kind that no model saw. They show how much resemblance chance alone gives.
    """
    known, control = embed(members), embed(non_members)
    found = []
    for batch in [samples] if isinstance(samples, Tensor) else samples:
        features = embed(batch)
        similarity, distance, nearest = metrics.closest(batch, features, members, known)
        others = metrics.closest(batch, features, non_members, control)
        found.append((similarity, distance, nearest, others[0], others[1]))
    return Similarities(*(torch.cat(column) for column in zip(*found, strict=True)))
