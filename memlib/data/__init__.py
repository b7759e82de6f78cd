"""Images from any source in one form, and seeded, disjoint parts of them.

Each source is one file and one entry in `SOURCES`: a function (place, size, *, options) -> Images. `place` is the text
between the colon and the options. The keyword-only parameters of the function (int, str or bool) are its options.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from memlib.data import (
    celeba,
    cifar10,
    digits,
    faces,
    folder,
    hub,
    imagenet,
    lfw,
    mnist,
    olivetti,
    options,
    places365,
    stl10,
)
from memlib.data._copies import copies
from memlib.data.images import Images, collect, label_numbers, plant_duplicates, subset
from memlib.data.splits import audit_split, split
from memlib.errors import Refused

__all__ = [
    "SOURCES",
    "Images",
    "audit_split",
    "collect",
    "copies",
    "label_numbers",
    "load",
    "plant_duplicates",
    "split",
    "subset",
]

SOURCES: dict[str, Callable[..., Images]] = {
    "celeba": celeba.load,
    "cifar10": cifar10.load,
    "digits": digits.load,
    "faces": faces.load,
    "folder": folder.load,
    "hub": hub.load,
    "imagenet": imagenet.load,
    "lfw": lfw.load,
    "mnist": mnist.load,
    "olivetti": olivetti.load,
    "places365": places365.load,
    "stl10": stl10.load,
}


def load(source: str | Path, size: int | None = None, stored: bool = False) -> Images:
    """The images of a source, (N, C, H, W) in [-1, 1].

    Each kind of source has its own options. All of them understand `limit=N` (N images, drawn by seed),
    `duplicates=10x5` (five further copies of ten images, appended) and `seed=N` (0 by default; used for both).

    Arguments:
        source: `kind:PLACE,name=value,...`: one of `SOURCES`, the place of its files, and options. A `Path` is that of
            a folder.
        size: resample to (size, size) pixels; None keeps the stored size.
        stored: for sets larger than memory: image files are read once and kept in the cache as uint8, and become
            float32 where they are looked at. `Images.images` is then a `memlib.stored.Stored`. The same as the option
            `stored=yes` of the sources that have it; what comes in one file is held in memory as ever.

    Raises:
        Refused: for an unknown source, option or value, and for files that the source cannot read; the message says
            why.
    """
    source = f"folder:{source}" if isinstance(source, Path) else source
    reader = _reader(source)
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    place, given = options.read(source, reader)
    declared = options.own(reader)
    if stored and "stored" in declared:
        given["stored"] = True
    wanted = str(given.get("duplicates", "0x0"))
    planted = re.fullmatch(r"(\d{1,9})x(\d{1,9})", wanted, re.ASCII)
    if not planted:
        raise Refused(f"the option duplicates is IMAGESxCOPIES such as 10x5, not {wanted!r}")
    if (seed := int(given.get("seed", 0))) > 2**62:
        raise Refused(f"seed = {seed} is too large: give 0 to 2^62")
    images = reader(place, size, **{name: value for name, value in given.items() if name in declared})
    if "limit" in given and "limit" not in declared:
        images = images[subset(len(images), int(given["limit"]), seed)]
    if "duplicates" in given:
        images, _ = plant_duplicates(images, int(planted[1]), int(planted[2]), seed)
    return replace(images, source=source)


def check(source: str) -> None:
    """Raise Refused for a source that `load` cannot start to read: an unknown kind or option, or a missing folder."""
    reader = _reader(source)
    place, _ = options.read(source, reader)
    if reader is not hub.load and place and not os.path.exists(os.path.expanduser(place)):
        raise Refused(f"there is no folder {place!r}: give {source.partition(':')[0]}:PATH with the path of one")


def _reader(source: str) -> Callable[..., Images]:
    """The function that reads this kind of source, or Refused."""
    kind = source.partition(":")[0]
    if kind not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise Refused(f"there is no data source {kind!r}: give one of {known}, as in 'digits' or 'folder:PATH'")
    return SOURCES[kind]
