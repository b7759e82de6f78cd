"""Images from any source in one form, and seeded, disjoint parts of them.

Each source is one file and one entry in `SOURCES`: a function (place, size, *, options) -> Images. `place` is the text
between the colon and the options. The keyword-only parameters of the function (int, str or bool) are its options.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

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
from memlib.data.images import Images, collect, plant_duplicates, subset
from memlib.errors import Refused

__all__ = ["SOURCES", "Images", "collect", "audit_split", "load", "plant_duplicates", "split", "subset"]

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

_HALVES = 20_231  # the seed of the two halves; another one would mix images of the two


def load(source: str, size: int | None = None) -> Images:
    """The images of a source, (N, C, H, W) in [-1, 1].

    Each kind of source has its own options. All of them understand `limit=N` (N images, drawn by seed),
    `duplicates=10x5` (five further copies of ten images, appended) and `seed=N` (0 by default; used for both). Nothing
    is cached.

    Arguments:
        source: `kind:PLACE,name=value,...`: one of `SOURCES`, the place of its files, and options.
        size: resample to (size, size) pixels; None keeps the stored size.

    Raises:
        Refused: for an unknown source, option or value, and for files that the source cannot read; the message says
            why.
    """
    reader = _reader(source)
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    place, given = options.read(source, reader)
    declared = options.own(reader)
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
    path = Path(place).expanduser()
    if reader is not hub.load and place and not path.exists():
        raise Refused(f"there is no folder {place!r}: give {source.partition(':')[0]}:PATH with the path of one")


def split(
    images: Images, sizes: dict[str, int], half: Literal["explore", "report"] = "report", seed: int = 0
) -> dict[str, Images]:
    """Disjoint random parts of the given sizes, by name, drawn by `seed` from one half of the images.

    The halves are the same for every seed. Settings are chosen on `explore`; numbers are reported from `report`, which
    gets the extra image if the number is odd. Images are identified by position, so exact duplicates in a set may fall
    into two parts.

    Arguments:
        images: N images.
        sizes: the number of images of each part, by its name.
        half: "explore" or "report".
        seed: draws the parts within the half.

    Raises:
        Refused: for a size below 1, for parts that do not fit into the half, and for another half.
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
        raise Refused(f"{wanted} images do not fit into {room}: give smaller sizes")
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    parts = pool[: sum(sizes.values())].split(list(sizes.values()))
    return {name: images[part] for name, part in zip(sizes, parts, strict=True)}


def audit_split(
    images: Images,
    n: int = 0,
    half: Literal["explore", "report"] = "report",
    seed: int = 0,
    others: Images | None = None,
    reference: int = 64,
) -> dict[str, Images]:
    """The four parts of an audit, all disjoint: `members`, `non_members` (as many), `reference` and `calibration`.

    Members are trained on. Non-members are scored like members, but no model ever sees them. Features are fitted on the
    reference part, thresholds on the calibration part. These two parts get the remaining images: the reference part a
    third of them, or `reference` images if that is more, but never more than half.

    Arguments:
        images: the images to split.
        n: the number of members. 0 means two sevenths of the half and at most 300, or all of `images` if `others` are
            given.
        half: see `split`.
        seed: draws the parts.
        others: images that the model never saw. All parts but the members are then drawn from them.
        reference: the size of the reference part, see above.

    Raises:
        Refused: if too few held-out images are left.
    """
    source = others or images
    wanted = n or (len(images) if others else max(1, min(300, len(images) // 7)))
    room = len(source) // 2 - wanted * (1 if others else 2)
    if room < 4:
        raise Refused(
            f"{wanted} members and {wanted} non-members leave {max(room, 0)} held-out images of {len(source)}, half of "
            "which are set aside: give fewer members, or more images"
        )
    kept = max(room // 3, min(reference, room // 2))
    unseen = {"non_members": wanted, "reference": kept, "calibration": room - kept}
    if others is None:
        return split(images, {"members": wanted} | unseen, half, seed)
    if wanted > len(images):
        raise Refused(f"{wanted} members cannot be drawn from {len(images)} images: give fewer, or 0 for all")
    return {"members": images[subset(len(images), wanted, seed)]} | split(others, unseen, half, seed)


def _reader(source: str) -> Callable[..., Images]:
    """The function that reads this kind of source, or Refused."""
    kind = source.partition(":")[0]
    if kind not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise Refused(f"there is no data source {kind!r}: give one of {known}, as in 'digits' or 'folder:PATH'")
    return SOURCES[kind]
