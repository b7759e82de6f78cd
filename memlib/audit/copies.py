"""Which of the generated images are copies of training images, at a rate set by images nobody trained on.

Held-out images are dealt by a coin into three parts: one trains the descriptor, one sets the threshold, and one is
scored beside the samples as a control. Without held-out images the threshold is set by the training images themselves,
each compared with all the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memlib import features, membership, metrics
from memlib.cache import cached
from memlib.errors import Refused
from memlib.metrics import Count, Joint
from memlib.metrics.neighbours import apart
from memlib.stored import Rows, choose, distinct_rows

FPR = 0.001  # the lowest false-positive rate that is asked for; fewer than 1,000 images resolve 1 / their number
SURE = math.ceil(1 / FPR)
_RATIO = 1 / 2  # with fewer of them, a copy is also this much nearer than the next training image
_REFERENCE = 48  # images that a descriptor is trained on, at least
_ENOUGH = 1000  # and at most: they are held in memory, and more of them teach it little


@dataclass(frozen=True)
class Parts:
    """Positions among the held-out images: of the `reference`, `calibration` and `control` parts, (R,), (C,), (K,)."""

    reference: Tensor
    calibration: Tensor
    control: Tensor


@dataclass(frozen=True)
class Found:
    """How N samples resemble T training images.

    Attributes:
        nearest: the nearest training image of each sample, (N,).
        similarity: its cosine, (N,), and
        distance: its L2 distance in pixels, (N,).
        other: the nearest held-out image of each sample, (N,), -1 without held-out images.
        copy: whether each sample is a copy, (N,) bool.
        edges: the thresholds, and
        fpr: the rate at which they were set, by
        calibrated: so many images, `held_out` or not.
        copies: k copies of N samples.
        control: k of the held-out images of the control part that would pass for copies; None without that part.
        measures: further figures by name: (value, low, high, baseline), low, high and baseline may be None.
    """

    nearest: Tensor
    similarity: Tensor
    distance: Tensor
    other: Tensor
    copy: Tensor
    edges: Joint
    fpr: float
    calibrated: int
    held_out: bool
    copies: Count
    control: Count | None
    measures: dict[str, tuple[float, float | None, float | None, float | None]]


def deal(n: int, seed: int, descriptor: str) -> Parts:
    """Deal n held-out images into the three parts; a descriptor that is given needs no reference."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    reference = min(n // 3, _ENOUGH) if descriptor == "copies" or (descriptor == "auto" and n >= 3 * _REFERENCE) else 0
    middle = reference + (n - reference) // 2
    return Parts(order[:reference], order[reference:middle], order[middle:])


def describe(descriptor: str, train: Rows, reference: Tensor, device: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The name of a descriptor and its embedder, (N, C, H, W) -> (N, D).

    Arguments:
        descriptor: "auto", "copies" (trained on the reference), "pixels" (minus the mean of the training images), or
            `sscd:FILE`, `clip:FOLDER`, `dinov2:FOLDER`. Auto is "copies" where there are enough held-out images.
        train: (T, C, H, W).
        reference: (R, C, H, W).
        device: of a network.

    Raises:
        Refused: for another name, and "copies" without a reference.
    """
    kind, _, place = descriptor.partition(":")
    if descriptor == "auto":
        descriptor = kind = "copies" if len(reference) else "pixels"
    if kind == "copies":
        if len(reference) < 16:
            raise Refused("the descriptor copies is trained on held-out images: give 48 or more, or pixels")
        return "copies", features.copies(reference, cached("audit-copies", features.learn_copies, reference))
    if kind == "pixels":
        return "pixels", features.centred(train)
    makers = {"sscd": features.sscd, "clip": features.clip, "dinov2": features.dinov2}
    if kind not in makers or not place:
        raise Refused(f"there is no descriptor {descriptor!r}: give auto, copies, pixels, sscd:, clip: or dinov2:PATH")
    return kind, makers[kind](Path(place), device=device)


def judge(
    samples: Rows,
    train: Rows,
    group: Tensor,
    held_out: Rows | None,
    parts: Parts,
    embed: Callable[[Any], Rows],
) -> Found:
    """Find the nearest training image of each sample and call it a copy, or not.

    Arguments:
        samples: (N, C, H, W), in memory or on disk.
        train: (T, C, H, W).
        group: (T,), the first copy of each training image.
        held_out: (M, C, H, W), distinct and none a copy of a training image; or None.
        parts: of the held-out images.
        embed: (N, C, H, W) -> (N, D).
    """
    first = group.unique()
    alone = choose(train, first)
    known, made = embed(alone), embed(samples)
    similarity, distance, place = metrics.closest(samples, made, alone, known)
    strange = train[:0] if held_out is None else held_out
    beyond = embed(strange) if len(strange) else known[:0]
    outside = len(strange) > 0 and len(parts.calibration) >= 10

    def against(part: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and distance of some held-out images to their nearest training images."""
        return metrics.closest(choose(strange, part), choose(beyond, part), alone, known)[:2]

    judged = against(parts.calibration) if outside else _others(alone, known)
    count = len(judged[0])
    fpr = max(FPR, 1 / count)
    edges = metrics.joint_threshold(*judged, fpr) if count > 1 else Joint(1.0, 0.0)
    ratio = _ratio(samples, alone)
    copy = _passed(similarity, distance, ratio, edges, count)
    control = None
    if outside and len(parts.control):
        hit = _passed(*against(parts.control), _ratio(choose(strange, parts.control), alone), edges, count)
        control = Count(int(hit.sum()), len(hit))
    other = torch.full((len(samples),), -1)
    measures = _counted(copy, first[place], ratio, len(first))
    measures |= _compared(samples, made, alone, known, held_out)
    if len(beyond):
        other = metrics.nearest(made, beyond)[1][:, 0]
    return Found(
        nearest=first[place],
        similarity=similarity,
        distance=distance,
        other=other,
        copy=copy,
        edges=edges,
        fpr=fpr,
        calibrated=count,
        held_out=outside,
        copies=Count(int(copy.sum()), len(copy)),
        control=control,
        measures=measures,
    )


def hits(images: Rows, made: Rows, train: Rows, known: Rows, found: Found) -> Tensor:
    """Which of distinct training images (T, C, H, W), of features (T, D), further images (N, C, H, W), of features
    (N, D), copy by the thresholds of `found`, (N,), -1 for none."""
    similarity, distance, place = metrics.closest(images, made, train, known)
    copy = _passed(similarity, distance, _ratio(images, train), found.edges, found.calibrated)
    return torch.where(copy, place, -1)


def _passed(similarity: Tensor, distance: Tensor, ratio: Tensor, edges: Joint, calibrated: int) -> Tensor:
    """Both thresholds; with few calibration images, which resolve no low rate, also the ratio of two distances."""
    hit = edges.passed(similarity, distance)
    return hit if calibrated >= SURE else hit & (ratio <= _RATIO)


def _ratio(images: Rows, train: Rows) -> Tensor:
    """The distance of each image (N, C, H, W) to the nearest training image over that to the next one, (N,)."""
    return metrics.l2_ratio(images.flatten(1), train.flatten(1))


def _others(images: Rows, rows: Rows) -> tuple[Tensor, Tensor]:
    """The cosine and the L2 distance of each image to the nearest other one, (N,) each."""
    similarity, place = metrics.nearest(rows, rows, k=2)
    itself = place[:, 0] == torch.arange(len(rows))
    column = itself.long()[:, None]  # the image itself may come second where two are as near
    chosen = place.gather(1, column)[:, 0]
    return similarity.gather(1, column)[:, 0], apart(images, images, chosen)


def _share(count: Count, baseline: float | None = None) -> tuple[float, float | None, float | None, float | None]:
    return (count.rate, *count.interval(), baseline)


def _counted(copy: Tensor, nearest: Tensor, ratio: Tensor, size: int) -> dict:
    """What a count of copies says: distinct images, how many more samples would bring, and the l2-ratio."""
    hits = torch.bincount(nearest[copy]) if copy.any() else torch.zeros(1, dtype=torch.int64)
    n = len(copy)
    more = metrics.extrapolate_unique(hits, n, torch.tensor([10 * n]))
    return {
        "distinct training images copied (UMS)": (float((hits > 0).sum()), None, None, None),
        "distinct images expected from ten times the samples": (min(float(more[0]), size), None, None, None),
        "l2-ratio to distinct neighbours below 1/3": _share(Count(int((ratio < 1 / 3).sum()), n)),
    }


def _compared(
    samples: Rows,
    made: Rows,
    train: Rows,
    known: Rows,
    held_out: Rows | None,
) -> dict:
    """AuthPct, and where there are held-out images C_T, the DCR share and precision and recall."""
    flat, real = samples.flatten(1), train.flatten(1)
    found = {"authentic by distinct neighbours (AuthPct)": _share(metrics.authentic(flat, real))}
    if len(distinct_rows(made)[0]) > 4 and len(known) > 4:
        precision, recall = metrics.precision_recall(known, made)
        found["precision"], found["recall"] = _share(precision), _share(recall)
    if held_out is not None and len(held_out) > 1:
        beyond = held_out.flatten(1)
        near, far = _distance(flat, real), _distance(flat, beyond)
        share, baseline = metrics.nearer_to_train(near, far, len(real), len(beyond))
        found["nearer to a training than to a held-out image (DCR)"] = _share(share, baseline)
        score = metrics.copying_score(near, _distance(beyond, real))
        found["C_T, a z-value: far below 0 is copying"] = (score, None, None, 0.0)
    return found


def _distance(rows: Rows, targets: Rows) -> Tensor:
    """The L2 distance of each row (N, D) to its nearest target (M, D), (N,)."""
    return -membership.nearest_distance(rows, targets)
