"""What unlearning did to a completer: how good its completions are, what that means in words, and what it still knows.

Quality is measured where something was hidden and nowhere else: known pixels come out as they went in, so a measure of
whole images would credit a model with what it was given.

A loss is what a completer lost of some quality by unlearning, the original's minus the unlearned model's (of the cosine
of I2I sec. 4.1, say), larger where more is lost; `margin` is the loss that still counts as none. A word is given where
an interval over repetitions lies on one side of what it is compared with, and is "unclear" elsewhere. Each end of a
two-sided interval at level 0.9 misses one time in twenty: read alone, as here, it is a bound at 95 %.

An encoder that sends forget images to noise may still hold them: a linear probe reads them off its codes, and a few
steps on a few of them bring them back.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from memlib import metrics
from memlib.errors import Refused
from memlib.metrics import Count, auc, frechet_distance, inception_score
from memlib.papers.i2i.masks import hide

# Quality of what was completed.


class Judge(NamedTuple):
    """Functions of standardised images (N, C, H, W): features (N, D) for the Frechet distance, class probabilities
    (N, K), and features (N, D') for the cosine; the paper's are Inception-v3's, its, and CLIP's."""

    embed: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    resemble: Callable[[Tensor], Tensor]


class Quality(NamedTuple):
    """Frechet distance and Inception score of a set of completions, and per image, (N,), the cosine to the truth and
    the mean squared error of its hidden pixels."""

    frechet: float
    inception: float
    cosine: Tensor
    error: Tensor


def region(images: Tensor, mask: Tensor) -> Tensor:
    """The hidden region of images (N, C, H, W) alone, everything known at 0, the mean of standardised images."""
    return hide(images, ~mask)


@torch.no_grad()
def quality(made: Tensor, truth: Tensor, mask: Tensor, judge: Judge) -> Quality:
    """Completions `made` against the images that they complete, (N, C, H, W) both, on the hidden region.

    Frechet distance and cosine are between features of the completed and of the true region (I2I sec. 4.1, there of
    whole images); the Inception score is of the completions alone, over one part. A Frechet distance of few images is
    biased upwards: compare it at equal N.
    """
    ours, theirs = region(made, mask), region(truth, mask)
    squares = (ours - theirs).square().flatten(1).sum(1)
    count = mask.expand(len(made), 1, *mask.shape[-2:]).flatten(1).sum(1) * made.shape[1]
    return Quality(
        frechet_distance(judge.embed(ours), judge.embed(theirs)),
        inception_score(judge.probabilities(ours), 1)[0],
        torch.cosine_similarity(judge.resemble(ours), judge.resemble(theirs)),
        squares / count,
    )


# From losses to words.


class Outcome(NamedTuple):
    """What became of both sets: the interval of each mean loss, and the word that it earns beside the margin."""

    retain: tuple[float, float]
    forget: tuple[float, float]
    on_retain: Literal["keeps", "damages", "unclear"]
    on_forget: Literal["forgets", "remembers", "unclear"]


def interval(values: Tensor, level: float = 0.9) -> tuple[float, float]:
    """Student's interval of the mean of repetitions (S,); where all are equal, that value twice.

    At level 0.9 either end alone is a bound at 95 %. Raises Refused for fewer than two repetitions, for values of
    another shape, and for one that is NaN or infinite, which no interval could compare.
    """
    if values.dim() != 1 or not values.isfinite().all():
        raise Refused(f"an interval takes finite values (S,), one a repetition, not {values.tolist()}")
    return metrics.mean_interval(values, level)


def outcome(losses: Tensor, margin: float, level: float = 0.9) -> Outcome:
    """The words for losses (S, 2), on retain and on forget images, of S repetitions.

    keeps: the upper end on retain is below the margin; damages: the lower end is above it. forgets: the lower end on
    forget is above the margin; remembers: the upper end is below it. Raises Refused for another shape and as
    `interval`.
    """
    kept, lost = (interval(column, level) for column in _pairs(losses).T)
    on_retain = "keeps" if kept[1] < margin else "damages" if kept[0] > margin else "unclear"
    on_forget = "forgets" if lost[0] > margin else "remembers" if lost[1] < margin else "unclear"
    return Outcome(kept, lost, on_retain, on_forget)


def compare(losses: Tensor, ours: Tensor, margin: float, level: float = 0.9) -> Literal["succeeds", "fails", "unclear"]:
    """Whether another way to unlearn, of losses (S, 2), stands up to the paper's, `ours` (S, 2).

    Row s of both comes from one repetition. It fails if it damages, remembers, or is shown to forget less than ours:
    the interval of its forget loss minus ours, paired by repetition, lies below 0. It succeeds if it keeps, forgets and
    does not fail. Raises Refused for losses that do not pair up and as `outcome`.
    """
    if losses.shape != ours.shape:
        raise Refused(f"losses pair up by repetition as (S, 2), not {tuple(losses.shape)} and {tuple(ours.shape)}")
    _, _, on_retain, on_forget = outcome(losses, margin, level)
    less = interval((losses - ours)[:, 1], level)[1] < 0
    if on_retain == "damages" or on_forget == "remembers" or less:
        return "fails"
    return "succeeds" if (on_retain, on_forget) == ("keeps", "forgets") else "unclear"


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of points (retain loss, forget loss) that no other dominates, in their order.

    One dominates another if it loses no more on retain, at least as much on forget, and one of both strictly; equal
    points both stay.
    """

    def dominated(kept: float, lost: float) -> bool:
        return any(k <= kept and f >= lost and (k, f) != (kept, lost) for k, f in points.values())

    return [name for name, point in points.items() if not dominated(*point)]


def _pairs(losses: Tensor) -> Tensor:
    if losses.dim() != 2 or losses.shape[1] != 2:
        raise Refused(f"losses are (S, 2), on retain and on forget images, not {tuple(losses.shape)}")
    return losses


# What is still known.


def linear_probe(codes: Tensor, labels: Tensor, held_out: Tensor, answers: Tensor, strength: float = 1.0) -> Tensor:
    """Which held-out codes (M, D) a linear classifier of frozen codes (N, D) gives their class, (M,), bool.

    labels (N,), answers (M,). Logistic regression on standardised codes, `strength` the inverse of its L2 penalty;
    codes of further dimensions are flattened. All classes compete, those to be forgotten and those to be retained:
    `counted` counts the hits of either; rows of two encoders pair up in `metrics.paired_interval`. Raises Refused for
    codes and labels that do not pair up, for a single class and for codes that are not finite.
    """
    if len(codes) != len(labels) or len(held_out) != len(answers) or codes.shape[1:] != held_out.shape[1:]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (codes, labels, held_out, answers))
        raise Refused(f"a probe takes codes (N, D), labels (N,), codes (M, D), answers (M,), not {shapes}")
    if len(labels.unique()) < 2:
        raise Refused(f"all {len(labels)} codes have one label, and nothing is to be told apart: give two classes")
    fitted, asked = (part.detach().flatten(1).double().cpu() for part in (codes, held_out))
    if not (fitted.isfinite().all() and asked.isfinite().all()):
        raise Refused("codes contain NaN or infinity, which no probe can read: look at the encoder")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    probe.fit(fitted.numpy(), labels.cpu().numpy())
    return torch.as_tensor(probe.predict(asked.numpy())) == answers.cpu()


def counted(hits: Tensor, labels: Tensor, classes: Sequence[int]) -> Count:
    """Hits (M,) among the rows whose label (M,) is one of `classes`, k of n. Refused where there is no such row."""
    rows = torch.isin(labels.cpu(), torch.as_tensor(classes))
    if not rows.any():
        raise Refused(f"none of the {len(labels)} labels is among the classes {list(classes)}: give others")
    return Count(int(hits[rows].sum()), int(rows.sum()))


def relearning(
    steps: Iterable[object], score: Callable[[], float], at: Sequence[int] = (0, 1, 2, 5, 10, 20, 50, 100)
) -> Iterator[tuple[int, float]]:
    """(steps taken, score) along training that goes on: `steps`, such as `train.fit(...)` on a few forget images.

    `score` reads the network as it then is, a scalar. Numbers of steps in `at` rise; the curve ends early if training
    does. Nothing is trained beyond the last. Raises Refused for numbers that do not rise from 0 or more.
    """
    if not at or at[0] < 0 or any(a >= b for a, b in itertools.pairwise(at)):
        raise Refused(f"the numbers of steps to score at must rise from 0 or more, not {list(at)}")
    running, done = iter(steps), 0
    for wanted in at:
        taken = sum(1 for _ in itertools.islice(running, wanted - done))
        if taken < wanted - done:
            return
        done = wanted
        yield done, score()


def truth_separation(
    retained: Tensor, retained_truth: Tensor, forgotten: Tensor, forgotten_truth: Tensor, level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """P(a completion of a forget image lies farther from its truth than that of a retain image), and its interval.

    Features of completions and of the images they complete: (N, D) twice, (M, D) twice; distance is 1 - cosine. The
    number beneath a t-SNE picture (the paper's figure 4), from the features themselves: 0.5 where forget images fare as
    retain images do, 1 where all lie farther. Classes differ before anything is unlearned: show the original model's
    beside it. Interval: DeLong et al. 1988, see `metrics.auc`. Raises Refused for features that do not pair up.
    """
    for completed, truth in ((retained, retained_truth), (forgotten, forgotten_truth)):
        if completed.shape != truth.shape or completed.dim() != 2:
            raise Refused(f"features must pair up as (N, D), not {tuple(completed.shape)} and {tuple(truth.shape)}")
    near = 1 - F.cosine_similarity(retained.double(), retained_truth.double())
    far = 1 - F.cosine_similarity(forgotten.double(), forgotten_truth.double())
    return auc(far.cpu(), near.cpu(), level)
