"""Inputs by Hypothesis: each is read, or refused in one sentence. Anything else is wrong.

A case is a batch of inputs in one forked process with bounded memory. It draws and does not shrink: the tests do.
"""

import collections
import resource
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from faults.cases import Found, Kind, one, scratch, sentence
from faults.process import alone
from memlib.errors import Refused
from memlib.train import Diverged

INPUTS = 25  # of a case
_MEMORY = 12 << 30  # bytes of address space, most of which torch only reserves
_QUIET = settings(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False
)

Read = Callable[[Path, Any], None]
"""Reads an input in a folder, or raises Refused. What it read it checks itself, by AssertionError."""


def outcome(read: Read, given: Any) -> tuple[str, str]:
    """recovered, refused or wrong, and why."""
    with scratch() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(Path(place), given)
        except (Refused, Diverged) as refused:
            told = str(refused)
            return ("refused", "") if sentence(told) else ("wrong", f"no sentence: {told[:300]!r} for {given!r:.300}")
        except Exception:
            return "wrong", f"{traceback.format_exc()[-900:]} for {given!r:.400}"
    return "recovered", ""


def kind(inputs: Callable[[], SearchStrategy], read: Read, cases: int) -> Kind:
    """A kind of fault: `cases` batches of inputs for one reader."""

    def case(seed: int) -> Found:
        ended = alone(_batch, inputs, read, seed)
        return Found(*ended.told) if ended.how == "done" else one("wrong", f"seed {seed}: {ended.how}: {ended.told}")

    return Kind(cases, case)


def _batch(inputs: Callable[[], SearchStrategy], read: Read, seed: int) -> Found:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    counts, why = collections.Counter(), []

    @hypothesis.seed(seed)
    @settings(_QUIET, max_examples=INPUTS)
    @given(inputs())
    def draw(one: Any) -> None:
        found, told = outcome(read, one)
        counts[found] += 1
        why.extend([told] if told else [])

    draw()
    return Found(dict(counts), 0, tuple(why))
