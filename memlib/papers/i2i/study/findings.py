"""What a kept run says, from its claims and tables alone: the opening of the chapter and its figures of ablations."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from memlib.papers.i2i.study.comparison import LI2024

Interval = tuple[float, tuple[float, float]]
Rows = Sequence[Sequence[str]]

NAMES = {"mae": "MAE", "vqgan": "VQ-GAN", "diffusion": "diffusion inpainter"}
BARE = "retain term alone"


def table_of(kept: Mapping[str, Any] | None, beginning: str) -> Rows:
    """The kept table whose title begins so, without its first row; empty where there is none."""
    tables = kept["tables"] if kept else {}
    return next((rows[1:] for title, rows in tables.items() if title.startswith(beginning)), [])


def column(rows: Rows, index: int) -> dict[str, Interval]:
    """A column of `mean [low, high]` by the first column; rows without an interval are left out."""
    return {row[0]: value for row in rows if (value := value_and_interval(row[index]))}


def value_and_interval(text: str) -> Interval | None:
    """The numbers of `mean [low, high]`; None for another text."""
    match = re.fullmatch(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    return (float(match[1]), (float(match[2]), float(match[3]))) if match else None


def losses(kept: Mapping[str, Any] | None, index: int) -> dict[str, Interval]:
    """Loss on retain (3) or forget images (4) by the paper's method and by the retain term alone, in every family."""
    found = {}
    for family, method, *rest in _methods(kept):
        if method in (LI2024, BARE) and (value := value_and_interval(rest[index - 2])):
            found[f"{NAMES[family]}, {method}"] = value
    return found


def sentences(kept: Mapping[str, Any] | None) -> str:
    """Three sentences: what the paper's method does, what the retain term does alone, and what is still known."""
    rows = _methods(kept)
    if not rows:
        return "No kept run is at hand: `memlib study i2i --scale book` makes one."
    words = {NAMES[family]: rest[3] for family, method, *rest in rows if method == LI2024}
    good = [family for family, word in words.items() if word == "keeps, forgets"]
    other = [f"{family} ({word})" for family, word in words.items() if family not in good]
    first = f"The paper's method keeps retain images and forgets the others in the {_listed(good) or 'families: none'}"
    first += f", but not in the {_listed(other)}." if other else "."
    mine, bare = (_forget(rows, method) for method in (LI2024, BARE))
    second = (
        f"In the {next(iter(words))} it loses {mine} of cosine on forget images, and training on without these images, "
        f"with no forget term, loses {bare}: much of what passes for unlearning is further training."
    )
    curves = {row[0]: row[1:] for row in table_of(kept, "Cosine on forget images after steps")}
    if not curves:
        return f"{first} {second}"
    third = (
        f"The classes are not gone: five steps on five images a class bring the unlearned model from "
        f"{curves['unlearned'][0]} back to {curves['unlearned'][3]} (the original had {curves['original'][0]}), and a "
        f"model retrained without the classes to {curves['retrained without'][3]}."
    )
    return f"{first} {second} {third}"


def _methods(kept: Mapping[str, Any] | None) -> list[list[str]]:
    """The rows of the main table; an older run calls the paper's method "ours"."""
    rows = table_of(kept, "Cosine of the original and its losses")
    return [[LI2024 if cell == "ours" else cell for cell in row] for row in rows]


def _forget(rows: Rows, method: str) -> str:
    """The mean loss on forget images by a method in the first family, without its interval."""
    return next(row[4] for row in rows if row[1] == method).split(" ")[0]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
