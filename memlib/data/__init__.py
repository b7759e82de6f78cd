"""Images from anywhere, all in one form; and seeded, disjoint parts of them.

One file a source, one entry in `SOURCES`: a function (place, size) -> Images, where `place` is what follows the colon.
"""

from collections.abc import Callable
from typing import Literal

import torch

from memlib.data import digits, folder
from memlib.data.images import Images, collect, plant_duplicates
from memlib.errors import Refused

__all__ = ["SOURCES", "Images", "collect", "load", "plant_duplicates", "split"]

SOURCES: dict[str, Callable[[str, int | None], Images]] = {"digits": digits.load, "folder": folder.load}

_HALVES = 20_231    # the seed of the two halves; changing it mixes what was explored with what is reported


def load(source: str, size: int | None = None) -> Images:
    """The images of a source, `digits` or `folder:PATH`, (N, C, H, W) in [-1, 1]; `size` resamples to (size, size).

    Nothing is cached. Raises Refused for an unknown source and, in the source's own words, for what it cannot read.
    """
    kind, _, place = source.partition(":")
    if kind not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise Refused(f"there is no data source {kind!r}: give one of {known}, as in 'digits' or 'folder:PATH'")
    return SOURCES[kind](place, size)


def split(
    images: Images, sizes: dict[str, int], half: Literal["explore", "report"] = "report", seed: int = 0
) -> dict[str, Images]:
    """Disjoint random parts of the given sizes, drawn by `seed` from one half of the images, by name.

    The halves are the same for every seed: settings are chosen on `explore`, numbers are printed from `report` (which
    has the odd image). Images are told apart by position, so exact duplicates in a set may fall into two parts.
    Raises Refused for a size below 1, for parts that together exceed the half, and for another half.
    """
    if half not in ("explore", "report"):
        raise Refused(f"the half is 'explore' or 'report', not {half!r}")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_HALVES))
    middle = len(images) // 2
    pool = order[:middle] if half == "explore" else order[middle:]
    if small := [name for name, size in sizes.items() if size < 1]:
        raise Refused(f"the part {small[0]!r} has {sizes[small[0]]} images: give at least 1")
    if sum(sizes.values()) > len(pool):
        wanted = " + ".join(f"{size} {name}" for name, size in sizes.items())
        room = f"the {half} half, which has {len(pool)} of {len(images)}"
        raise Refused(f"{wanted} images do not fit into {room}: ask for fewer")
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    parts = pool[: sum(sizes.values())].split(list(sizes.values()))
    return {name: images[part] for name, part in zip(sizes, parts, strict=True)}
