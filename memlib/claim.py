"""The verdict of a study on one claim of a paper, with the figures that support it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from memlib.errors import Refused

Verdict = Literal["reproduced", "trend only", "not reproduced", "needs data or scale"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

Interval = tuple[float, tuple[float, float]]  # a value, and the ends of its interval


@dataclass(frozen=True)
class Claim:
    """The verdict on claim `id` of `book/claims.yaml`, with the measurement behind it.

    Arguments:
        id: such as "S1"; a letter after it names a part of the claim, as in "I9a".
        verdict: one of `VERDICTS`.
        figure: the measurement: a number, or a list or dict of numbers.
        n: the independent samples or runs behind the figure, at least 1.
        interval: (low, high) of the difference or rate that decides, or None; an unbounded one is recorded as none.
        text: one sentence for the ledger.

    Raises:
        Refused: for another verdict, an interval that is not (low, high), n below 1 or a figure that is not finite.
    """

    id: str
    verdict: str
    figure: Any
    n: int
    interval: Sequence[float] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise Refused(f"claim {self.id}: the verdict is {self.verdict!r}: choose one of {', '.join(VERDICTS)}")
        if self.interval is not None and not (len(self.interval) == 2 and self.interval[0] <= self.interval[1]):
            raise Refused(
                f"claim {self.id}: the interval {self.interval!r} is not (low, high): give two numbers in order"
            )
        if self.n < 1:
            raise Refused(f"claim {self.id}: n is {self.n}: count the samples or runs behind the figure")
        self.record("")

    def record(self, scale: str) -> dict[str, Any]:
        """The claim at a scale as JSON. Numbers have three significant digits, so that every CPU prints the same."""
        known = self.interval is not None and all(map(math.isfinite, self.interval))
        interval = _rounded(list(self.interval or ())) if known else None
        kept = {"id": self.id, "scale": scale, "figure": _rounded(self.figure), "interval": interval}
        kept |= {"n": int(self.n), "verdict": self.verdict}
        return kept | ({"text": self.text} if self.text else {})


def _rounded(figure: Any) -> Any:
    """Numbers (tensors of one element too) to three significant digits, through lists and dicts."""
    if isinstance(figure, str | bool):
        return figure
    if isinstance(figure, Mapping):
        return {str(key): _rounded(value) for key, value in figure.items()}
    if isinstance(figure, list | tuple):
        return [_rounded(value) for value in figure]
    if not math.isfinite(figure):
        raise Refused(f"a claim's figure is {figure}: record a number")
    short = float(f"{float(figure):.3g}")
    return int(short) if isinstance(figure, int) else short


def value_and_interval(text: str) -> Interval | None:
    """The numbers of a cell `mean [low, high]` of a table that a study keeps; None for another text."""
    match = re.fullmatch(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    return (float(match[1]), (float(match[2]), float(match[3]))) if match else None
