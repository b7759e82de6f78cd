"""Does the unlearned model still know? Three questions put to it from outside, by codes, by training, by features.

An encoder that sends forget images to noise may still hold them: a linear probe reads them off its codes, and a few
steps on a few of them bring them back.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from memlib.errors import Refused
from memlib.metrics import Count, auc


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


def separation(
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
