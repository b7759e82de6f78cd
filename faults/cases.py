"""What a case found, and the folder of finished cases: a run that is stopped goes on where it was.

A kind of fault has a number of cases and a function `case(seed)` -> `Found`. An outcome is one of four:

- recovered: after the fault the same bits; for an input that may be right, what it says was read;
- refused: one sentence that says what to do, and the same bits once that is done;
- lost: work that was finished before the fault had to be done again, or was gone;
- wrong: other bits, a traceback, code of a file that ran, or no end.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from memlib.cache._fingerprint import code_fingerprint
from memlib.cache.atomic import replace_file

ROOT = Path(__file__).parents[1]
OUTCOMES = ("recovered", "refused", "lost", "wrong")
_LONGEST = 700  # characters of a sentence, paths included


class Found(NamedTuple):
    """How many inputs or faults had each outcome, how many processes were killed, and what went wrong, in words."""

    counts: dict[str, int]
    kills: int = 0
    why: tuple[str, ...] = ()


class Kind(NamedTuple):
    """A kind of fault: its number of cases, and the function of one. `sample` cases are enough for a minute's look."""

    cases: int
    case: Callable[[int], Found]
    sample: int = 1


def one(outcome: str, why: str = "", kills: int = 0) -> Found:
    """What a case of a single fault found."""
    return Found({outcome: 1}, kills, (why,) if why else ())


def sentence(text: str) -> bool:
    """Whether a person can act on it: one line, not long, and no traceback."""
    return bool(text) and "\n" not in text and len(text) <= _LONGEST and "Traceback (most" not in text


def home() -> Path:
    """The folder of finished cases, named by the code that they are about."""
    digest = hashlib.sha256(code_fingerprint().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return ROOT / "runs" / "faults" / digest.hexdigest()[:16]


def finished(folder: Path, name: str, kind: Kind, cases: int) -> Iterator[Found]:
    """What the first `cases` cases of a kind found, each run unless the folder has it."""
    for seed in range(cases):
        path = folder / name.replace(" ", "-").replace(",", "") / f"{seed:04d}.json"
        if path.exists():
            yield Found(*json.loads(path.read_text(encoding="utf8")))
            continue
        found = kind.case(seed)
        text = json.dumps(found)
        replace_file(path, lambda beside, text=text: beside.write_text(text, encoding="utf8"))
        yield found


def total(all_found: list[Found]) -> Found:
    """The sum over cases."""
    counts = {outcome: sum(found.counts.get(outcome, 0) for found in all_found) for outcome in OUTCOMES}
    why = tuple(told for found in all_found for told in found.why)
    return Found(counts, sum(found.kills for found in all_found), why)


def scratch() -> tempfile.TemporaryDirectory:
    """A folder that goes with its `with`."""
    return tempfile.TemporaryDirectory(prefix="memlib-faults-")
