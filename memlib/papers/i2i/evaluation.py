"""What unlearning did to a completer: how good its completions are, what that means in words, and what it still knows.

Quality is measured where something was hidden and nowhere else: known pixels come out as they went in, so a measure of
whole images would credit a model with what it was given.

A loss is the drop of some quality by unlearning, such as the cosine of I2I sec. 4.1: the original's minus the unlearned
model's, larger where more is lost. `margin` is the loss that still counts as none. A word is given where an interval
over repetitions lies on one side of what it is compared with; elsewhere it is "unclear". Each end of a two-sided
interval at level 0.9 misses one time in twenty, so read alone, as here, it is a bound at 95 %.

An encoder that sends forget images to noise may still know them: a linear probe may read their class from its codes,
and a few steps of training on a few of them may bring them back.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from memlib import metrics
from memlib.errors import Refused
from memlib.metrics import Count, auc, frechet_distance, inception_score
from memlib.papers.i2i.masks import hide

# Quality of what was completed.


class Judge(NamedTuple):
    """Functions of standardised images (N, C, H, W): features (N, D) for the Frechet distance, class probabilities
    (N, K), and features (N, D') for the cosine. The paper takes the first two from Inception-v3 and the last from CLIP.
    """

    embed: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    resemble: Callable[[Tensor], Tensor]


class Quality(NamedTuple):
    """Frechet distance and Inception score of a set of completions; for each image the cosine to the truth and the mean
    squared error of its hidden pixels, (N,)."""

    frechet: float
    inception: float
    cosine: Tensor
    error: Tensor


def region(images: Tensor, mask: Tensor) -> Tensor:
    """The hidden region of images (N, C, H, W) alone: known pixels are set to 0, the mean of standardised images."""
    return hide(images, ~mask)


@torch.no_grad()
def quality(made: Tensor, truth: Tensor, mask: Tensor, judge: Judge) -> Quality:
    """The quality of completions `made`, compared with the truth, (N, C, H, W) both, on the hidden region.

    Frechet distance and cosine are between features of the completed and of the true region (in I2I sec. 4.1, of whole
    images). The Inception score is of the completions alone, over one part. The Frechet distance of few images is
    biased upwards: compare it at equal N.
    """
    completed, true = region(made, mask), region(truth, mask)
    known, wanted = judge.embed(completed), judge.embed(true)
    alike = (known, wanted)  # where one network gives both kinds of features, it looks once
    if judge.resemble != judge.embed:
        alike = judge.resemble(completed), judge.resemble(true)
    squares = (completed - true).square().flatten(1).sum(1)
    count = mask.expand(len(made), 1, *mask.shape[-2:]).flatten(1).sum(1) * made.shape[1]
    return Quality(
        frechet_distance(known, wanted),
        inception_score(judge.probabilities(completed), 1)[0],
        torch.cosine_similarity(*alike),
        squares / count,
    )


# From losses to words.

FORGOTTEN = 0.5  # share of what there was to lose, from which on images count as forgotten
DESTROYED = 0.8  # and from which on nothing worth the name is left


class Outcome(NamedTuple):
    """What happened to both groups: intervals of the mean loss on retain images and of the share lost on forget images,
    and the word for each."""

    retain: tuple[float, float]
    share: tuple[float, float]
    on_retain: Literal["keeps", "damages", "unclear"]
    on_forget: Literal["destroys", "forgets", "remembers", "unclear"]

    @property
    def holds(self) -> bool:
        """Whether retain images are kept, and forget images forgotten or destroyed."""
        return self.on_retain == "keeps" and self.on_forget in ("forgets", "destroys")


def interval(values: Tensor, level: float = 0.9) -> tuple[float, float]:
    """Student's interval of the mean of repetitions (S,); unbounded where all are equal, since nothing is known then of
    how repetitions differ.

    At level 0.9 either end alone is a bound at 95 %.

    Raises:
        Refused: for fewer than two repetitions, values of another shape, and one that is NaN or infinite.
    """
    if values.dim() != 1 or not values.isfinite().all():
        raise Refused(f"an interval takes finite values (S,), one a repetition, not {values.tolist()}")
    return metrics.mean_interval(values, level)


def share_lost(losses: Tensor, above: Tensor) -> Tensor:
    """The share (S,) that was lost of what there was to lose on forget images: 1 is the floor.

    Each repetition's loss is divided by the mean distance, since one repetition's own distance may be near 0.

    Arguments:
        losses: (S, 2), on retain and on forget images.
        above: (S,), how far the original lay above the best filling on forget images.

    Raises:
        Refused: where the originals lay no higher than the filling, and for losses of another shape.
    """
    distance = float(above.mean())
    if not distance > 0:
        raise Refused(f"there is nothing to lose: the originals lie {distance:.3f} above the best filling")
    return _pairs(losses)[:, 1] / distance


def outcome(losses: Tensor, above: Tensor, margin: float, level: float = 0.9) -> Outcome:
    """The words for losses (S, 2), on retain and on forget images, of S repetitions.

    keeps: the upper end of the loss on retain is below the margin; damages: its lower end is above it. Of the share of
    the distance above the floor that was lost on forget images: destroys, the lower end is above 0.8; forgets, it is
    above 0.5; remembers, the upper end is below 0.5.

    Arguments:
        losses: (S, 2).
        above: (S,), how far the original lay above the best filling on forget images.
        margin: the loss on retain images that still counts as none.

    Raises:
        Refused: as `share_lost` and `interval`.
    """
    kept, share = interval(_pairs(losses)[:, 0], level), interval(share_lost(losses, above), level)
    on_retain = "keeps" if kept[1] < margin else "damages" if kept[0] > margin else "unclear"
    if share[0] > FORGOTTEN:
        on_forget = "destroys" if share[0] > DESTROYED else "forgets"
    else:
        on_forget = "remembers" if share[1] < FORGOTTEN else "unclear"
    return Outcome(kept, share, on_retain, on_forget)


def compare(
    losses: Tensor, reference: Tensor, above: Tensor, margin: float, level: float = 0.9
) -> Literal["succeeds", "fails", "unclear"]:
    """Whether a method succeeds, compared with a reference such as the paper's own.

    It fails if it damages, remembers, or is shown to forget less than the reference: the interval of the difference of
    their forget losses, paired by repetition, lies below 0. It succeeds if it keeps, forgets and does not fail.

    Arguments:
        losses: of the method, (S, 2), on retain and on forget images.
        reference: the same of the reference; row s of both comes from one repetition.
        above: (S,), how far the original lay above the best filling on forget images.
        margin: the loss on retain images that still counts as none.

    Raises:
        Refused: for losses that do not pair up and as `outcome`.
    """
    if losses.shape != reference.shape:
        shapes = f"{tuple(losses.shape)} and {tuple(reference.shape)}"
        raise Refused(f"losses pair up by repetition as (S, 2), not {shapes}")
    word = outcome(losses, above, margin, level)
    less = interval((losses - reference)[:, 1], level)[1] < 0
    if word.on_retain == "damages" or word.on_forget == "remembers" or less:
        return "fails"
    return "succeeds" if word.holds else "unclear"


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of points (retain loss, forget loss) that no other dominates, in their order.

    A point dominates another if it loses no more on retain and no less on forget images, and is better in one of them;
    equal points both stay.
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
    """Which held-out codes a linear classifier of frozen codes puts into their class, (M,), bool.

    All classes compete, those to forget and those to retain; `counted` counts the hits of some of them. Rows of two
    encoders pair up in `metrics.paired_interval`.

    Arguments:
        codes: (N, D), to fit logistic regression on; further dimensions are flattened, and codes are standardised.
        labels: (N,), the classes of these.
        held_out: (M, D), codes to classify.
        answers: (M,), the classes of these.
        strength: inverse of the L2 penalty.

    Raises:
        Refused: for codes and labels that do not pair up, a single class and codes that are not finite.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and most of this file does not need it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(codes) != len(labels) or len(held_out) != len(answers) or codes.shape[1:] != held_out.shape[1:]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (codes, labels, held_out, answers))
        raise Refused(f"a probe takes codes (N, D), labels (N,), codes (M, D), answers (M,), not {shapes}")
    if len(labels.unique()) < 2:
        raise Refused(f"all {len(labels)} codes have one label, and nothing is to be told apart: give two classes")
    fitted, unseen = (part.detach().flatten(1).double().cpu() for part in (codes, held_out))
    if not (fitted.isfinite().all() and unseen.isfinite().all()):
        raise Refused("codes contain NaN or infinity, which no probe can read: look at the encoder")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    probe.fit(fitted.numpy(), labels.cpu().numpy())
    return torch.as_tensor(probe.predict(unseen.numpy())) == answers.cpu()


def counted(hits: Tensor, labels: Tensor, classes: Sequence[int]) -> Count:
    """The hits (M,) among rows whose label (M,) is one of `classes`, k of n. Raises Refused if there is no such row."""
    rows = torch.isin(labels.cpu(), torch.as_tensor(classes))
    if not rows.any():
        raise Refused(f"none of the {len(labels)} labels is among the classes {list(classes)}: give others")
    return Count(int(hits[rows].sum()), int(rows.sum()))


def relearning(
    steps: Iterable[object], score: Callable[[], float], at: Sequence[int] = (0, 1, 2, 5, 10, 20, 50, 100)
) -> Iterator[tuple[int, float]]:
    """The curve (steps taken, score) while training goes on; it ends early if training does.

    Arguments:
        steps: training, such as `train.fit(...)` on a few forget images; nothing is trained beyond the last of `at`.
        score: reads the network as it then is, a scalar.
        at: numbers of steps, rising.

    Raises:
        Refused: for numbers that do not rise from 0 or more.
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
    """P(a forget completion lies farther from its truth than a retain completion from its own), and its interval.

    It says in a number what a t-SNE picture shows (the paper's figure 4), from the features themselves: 0.5 where both
    groups lie equally far, 1 where all forget completions lie farther. Classes differ before anything is unlearned, so
    show the original model's number as well. Distance is 1 - cosine; interval: DeLong et al. 1988, see `metrics.auc`.

    Arguments:
        retained, retained_truth: features (N, D) of completions of retain images, and of these images.
        forgotten, forgotten_truth: features (M, D), the same of forget images.

    Raises:
        Refused: for features that do not pair up.
    """
    for completed, truth in ((retained, retained_truth), (forgotten, forgotten_truth)):
        if completed.shape != truth.shape or completed.dim() != 2:
            raise Refused(f"features must pair up as (N, D), not {tuple(completed.shape)} and {tuple(truth.shape)}")
    near = 1 - F.cosine_similarity(retained.double(), retained_truth.double())
    far = 1 - F.cosine_similarity(forgotten.double(), forgotten_truth.double())
    return auc(far.cpu(), near.cpu(), level)
