"""What tables say, those of this run or of a kept one: the sentences that open the chapter, and intervals to draw."""

from collections.abc import Mapping, Sequence

from memlib.claim import Interval, value_and_interval
from memlib.papers.i2i.study.comparison import PRINTED, RELEASED

Rows = Sequence[Sequence[str]]
Tables = Mapping[str, Rows]

NAMES = {
    "mae": "MAE",
    "vqgan": "VQ-GAN",
    "diffusion": "diffusion inpainter",
    "masked code": "diffusion inpainter with a code of the masked image alone",
}
BARE = "retain term alone"
MAIN = "Cosine of the original and its losses"
RELEARNING = "Cosine on forget images after steps"


def rows_of(tables: Tables, beginning: str) -> list[list[str]]:
    """The table whose title begins so, without its first row; empty where there is none."""
    return [list(row) for title, rows in tables.items() if title.startswith(beginning) for row in rows[1:]]


def losses(rows: Rows) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain images and share lost on forget images, by name: the last three cells that hold an interval are
    the loss on retain, that on forget, and the share."""
    found = {}
    for row in rows:
        values = [value for cell in row[1:] if (value := value_and_interval(cell))]
        if len(values) >= 3:
            found[row[0]] = (values[-3], values[-1])
    return found


def methods_in(tables: Tables, family: str) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain images and share lost on forget images by every method in a family."""
    return losses([row[1:] for row in rows_of(tables, MAIN) if row[0] == family])


def in_families(tables: Tables) -> dict[str, tuple[Interval, Interval]]:
    """The same by both readings of the paper's method and by the retain term alone, in every family."""
    return {
        f"{family}, {method}": methods_in(tables, family)[method]
        for family in NAMES
        for method in (RELEASED, PRINTED, BARE)
        if method in methods_in(tables, family)
    }


def words_in(tables: Tables, family: str) -> dict[str, str]:
    """What every method does in a family: keeps or damages, destroys, forgets or remembers."""
    return {row[1]: row[6] for row in rows_of(tables, MAIN) if row[0] == family and row[6]}


def sentences(tables: Tables) -> str:
    """What the paper's method does as released and as printed, what the retain term does alone, what is still known."""
    words = {family: word for family in NAMES if (word := words_in(tables, family))}
    if not words:
        return "no run is kept here; `memlib study i2i --scale book` makes one."
    told = "; ".join(f"{NAMES[family]}: {word[RELEASED]}" for family, word in words.items())
    first, *_ = words
    nothing = dict.fromkeys((RELEASED, PRINTED, BARE), "nothing measurable")  # there was nothing to lose
    weights = {row[1]: row[2] for row in rows_of(tables, MAIN) if row[0] == first}
    lost = {
        method: f"{100 * value[1][0]:.0f} % (weight {weights[method]})"
        for method, value in methods_in(tables, first).items()
    }
    share = nothing | lost
    found = [
        f"as released, the paper's method does this to retain and to forget images. {told}.",
        f"In the {NAMES[first]} it takes {share[RELEASED]} of what there was to lose on forget images; as printed, "
        f"{share[PRINTED]}; and training on without these images, with no forget term, {share[BARE]}.",
    ]
    curves = {row[0]: row[1:] for row in rows_of(tables, RELEARNING)}
    if curves:
        found.append(
            f"The classes are not gone from the weights: five steps on five images of each class bring the unlearned "
            f"model from {curves['unlearned'][0]} back to {curves['unlearned'][3]} (the original had "
            f"{curves['original'][0]}), and a model retrained without them to {curves['retrained without'][3]}."
        )
    return " ".join(found)


def at_half(tables: Tables) -> dict[str, tuple[Interval, Interval]]:
    """Loss on retain images and share lost, by task, where the hole is nearest to half of the image."""
    every = by_hidden(tables)
    return {task: min(holes, key=lambda hole: abs(hole[0] - 50))[1:] for task, holes in every.items()}


def by_hidden(tables: Tables) -> dict[str, list[tuple[float, Interval, Interval]]]:
    """By task, by hole: percent hidden, loss on retain images and share lost on forget images; without
    holes where there was nothing to lose."""
    found: dict[str, list[tuple[float, Interval, Interval]]] = {}
    for row in rows_of(tables, "Tasks"):
        values = [value_and_interval(cell) for cell in row[2:]]
        if values[1] and values[3]:
            found.setdefault(row[0], []).append((float(row[1].rstrip(" %")), values[1], values[3]))
    return found
