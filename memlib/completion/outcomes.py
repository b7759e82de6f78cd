"""From losses to words: does a way to unlearn keep retain images, does it forget the others, does it fail beside ours?

A loss is what a completer lost of some quality by unlearning, the original's minus the unlearned model's (of the cosine
of I2I sec. 4.1, say), larger where more is lost; `margin` is the loss that still counts as none. A word is given where
an interval over repetitions lies on one side of what it is compared with, and is "unclear" elsewhere. Of a two-sided
interval at level 0.9 each end misses one time in twenty: read alone, as here, it is a bound at 95 %.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from memlib import metrics
from memlib.errors import Refused


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


def rival(
    losses: Tensor, ours: Tensor, margin: float, level: float = 0.9
) -> Literal["succeeds", "fails", "unclear"]:
    """Whether another way to unlearn, of losses (S, 2), stands up to ours, (S, 2); row s of both from one repetition.

    It fails if it damages, remembers, or is shown to forget less than ours: the interval of its forget loss minus ours,
    paired by repetition, lies below 0. It succeeds if it keeps, forgets and does not fail. Raises Refused for losses
    that do not pair up and as `outcome`.
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
