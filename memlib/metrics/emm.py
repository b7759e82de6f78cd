"""Effective model memorization: the largest training set that a procedure still memorizes. Gu et al. 2023, sec. 2."""

from collections.abc import Callable
from typing import NamedTuple

from memlib.errors import Refused
from memlib.metrics.counts import Count


class Emm(NamedTuple):
    """What a bisection over training-set sizes found.

    size: the largest size tried whose memorized share reached the level, 0 where none did. above: the smallest size
    tried that fell short of it, None where none did; the EMM lies in [size, above). trace: (size, share) in the order
    of the trials.
    """

    size: int
    above: int | None
    trace: list[tuple[int, Count | float]]


def emm(
    memorized: Callable[[int], Count | float], low: int, high: int, share: float = 0.9, ratio: float = 1.19
) -> Emm:
    """Bisect log-size for the largest training set, low <= n <= high, of which a share >= `share` is memorized.

    memorized: trains on n images and returns the memorized share of its samples, a `Count` or a number in [0, 1]; it is
        called at `low` and `high` first, then between them until the bracket is narrower than `ratio` (or one image).
    share: 0.9 is that of Gu et al. 2023, who take l2-ratio < 1/3 for memorized.

    Assumes that the share falls with n; the ends of the bracket are the only check of it. Where `high` still reaches
    the level or `low` does not, one end is open and nothing lies between: read `above` and `size`. A share from one
    training run is itself random: repeat with other seeds for an interval. Raises Refused for settings that make no
    sense.
    """
    if not 1 <= low < high or not 0 < share <= 1 or not ratio > 1:
        raise Refused(
            f"need 1 <= low < high, 0 < share <= 1 and ratio > 1, not {low}, {high}, share={share} and ratio={ratio}"
        )
    trace: list[tuple[int, Count | float]] = []

    def reaches(n: int) -> bool:
        value = memorized(n)
        trace.append((n, value))
        return (value.rate if isinstance(value, Count) else float(value)) >= share

    if not reaches(low):
        return Emm(0, low, trace)
    if reaches(high):
        return Emm(high, None, trace)
    while high - low > 1 and high / low > ratio:
        middle = min(max(round((low * high) ** 0.5), low + 1), high - 1)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return Emm(low, high, trace)
