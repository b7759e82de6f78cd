"""What tables say, those of this run or of a kept one: the sentences that open the chapter, and intervals to draw."""

import re
from collections.abc import Mapping, Sequence

from memlib.papers.i2i.study.comparison import LI2024

Interval = tuple[float, tuple[float, float]]
Rows = Sequence[Sequence[str]]
Tables = Mapping[str, Rows]

NAMES = {"mae": "MAE", "vqgan": "VQ-GAN", "diffusion": "diffusion inpainter"}
BARE = "retain term alone"
MAIN = "Cosine of the original and its losses"
RELEARNING = "Cosine on forget images after steps"


def rows_of(tables: Tables, beginning: str) -> list[list[str]]:
    """The table whose title begins so, without its first row; empty where there is none.

    A run of an older version calls the paper's method "ours" and a fraction "share".
    """
    rows = next((rows[1:] for title, rows in tables.items() if title.startswith(beginning)), [])
    return [[LI2024 if cell == "ours" else cell for cell in row] for row in rows]


def value_and_interval(text: str) -> Interval | None:
    """The numbers of `mean [low, high]`; None for another text."""
    match = re.fullmatch(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    return (float(match[1]), (float(match[2]), float(match[3]))) if match else None


def losses(rows: Rows) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain and on forget images by name: the first two columns that hold an interval."""
    found = {}
    for row in rows:
        values = [value for cell in row[1:] if (value := value_and_interval(cell))]
        if len(values) >= 2:
            found[row[0]] = (values[-2], values[-1])
    return found


def methods_in(tables: Tables, family: str) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain and on forget images by every method in a family."""
    return losses([row[1:] for row in rows_of(tables, MAIN) if row[0] == family])


def in_families(tables: Tables) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain and on forget images by the paper's method and by the retain term alone, in every family."""
    return {
        f"{name.split()[0]}, {method}": methods_in(tables, family)[method]
        for family, name in NAMES.items()
        for method in (LI2024, BARE)
        if method in methods_in(tables, family)
    }


def words_in(tables: Tables, family: str) -> dict[str, str]:
    """What every method does in a family: keeps or damages, forgets or remembers."""
    return {row[1]: row[5] for row in rows_of(tables, MAIN) if row[0] == family and row[5]}


def sentences(tables: Tables) -> str:
    """Three sentences: what the paper's method does, what the retain term does alone, and what is still known."""
    words = {name: word[LI2024] for family, name in NAMES.items() if (word := words_in(tables, family))}
    if not words:
        return "no run is kept here; `memlib study i2i --scale book` makes one."
    good = [name for name, word in words.items() if word == "keeps, forgets"]
    other = [f"{name} ({word})" for name, word in words.items() if name not in good]
    first = f"the paper's method keeps retain images and forgets the others in {_listed(good)}"
    first += f", but not in {_listed(other)}." if other else "."
    (family, name), *_ = NAMES.items()
    both = {method: f"{value[1][0]:.2f}" for method, value in methods_in(tables, family).items()}
    second = (
        f"In the {name} it loses {both[LI2024]} of cosine on forget images, but training on without these images, with "
        f"no forget term, loses {both[BARE]}: much of what passes for unlearning is further training."
    )
    curves = {row[0]: row[1:] for row in rows_of(tables, RELEARNING)}
    if not curves:
        return f"{first} {second}"
    third = (
        f"The classes are not gone: five steps on five images of each class bring the unlearned model from "
        f"{curves['unlearned'][0]} back to {curves['unlearned'][3]} (the original had {curves['original'][0]}), and a "
        f"model retrained without them to {curves['retrained without'][3]}."
    )
    return f"{first} {second} {third}"


def _listed(names: Sequence[str]) -> str:
    some = [f"the {name}" for name in names] or ["no family"]
    return " and ".join(filter(None, (", ".join(some[:-1]), some[-1])))
