"""SIDE: extract training images from an unconditional model by guidance with a surrogate classifier. Chen et al. 2024.

`sweep` draws samples at many guidance weights at once. `similarities` looks for the training images in them. Labels and
classifier come from `surrogates` and `students`, thresholds from held-out images (`metrics.threshold`).

    fresh = noise.seeded(seeds)
    x = sigmas[0] * fresh(torch.empty(len(seeds), *shape))
    labels = uniform_labels(fresh, len(seeds), classes)
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
from memlib.noise import Noise, expand_sigma
from memlib.papers.side import Logits, log_p
from memlib.random import to_device


def uniform_labels(noise: Noise, n: int, classes: int) -> Tensor:
    """Draw a label for each of n samples, (n,) integers, uniform on 0 .. classes - 1. SIDE sec. 3.3.3.

    Labels come from the noise of the samples themselves, so sample i wants the same label in every arm with the same
    number of classes.

    Arguments:
        noise: `noise.seeded` of the samples' seeds.
        n: number of samples.
        classes: number of labels.

    Raises:
        Refused: for fewer than one class.
    """
    if classes < 1:
        raise Refused(f"labels are drawn among at least one class, not {classes}")
    uniform = torch.special.ndtr(noise(torch.empty(n, 1, dtype=torch.float64)))[:, 0]
    return (uniform * classes).long().clamp_max(classes - 1)


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
    """How similar N samples are to training images: `similarity` (N,) to the `nearest` member, whose index is in (N,);
    `to_non_members` (N,) is the similarity to the nearest image that no model saw.
    """

    similarity: Tensor
    nearest: Tensor
    to_non_members: Tensor

    def hits(self, low: float, high: float = torch.inf) -> Tensor:
        """The index of the member that each sample copies, at a similarity in [low, high); -1 for none. (N,)."""
        return self.nearest.where(metrics.in_band(self.similarity, low, high), torch.full_like(self.nearest, -1))


def similarities(
    samples: Tensor | Iterable[Tensor], embed: Embed, members: Tensor, non_members: Tensor
) -> Similarities:
    """Find the nearest member of each sample, by the cosine of features.

    Arguments:
        samples: images (N, C, H, W), or batches of them as they come from disk.
        embed: images (N, C, H, W) -> features (N, D).
        members: training images (M, C, H, W).
        non_members: images of the same kind that no model saw. They show how much similarity chance alone gives.
    """
    known, control = embed(members), embed(non_members)
    found = []
    for batch in [samples] if isinstance(samples, Tensor) else samples:
        features = embed(batch)
        similarity, nearest = metrics.nearest(features, known)
        found.append((similarity[:, 0], nearest[:, 0], metrics.nearest(features, control)[0][:, 0]))
    return Similarities(*(torch.cat(column) for column in zip(*found, strict=True)))
