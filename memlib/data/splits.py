"""Seeded, disjoint parts of a set of images. Copies of one image stand in one part, so no part is a control of itself.

A model that memorized an image would otherwise be judged by thresholds that the image's own copy has set, and pass as
one that copies nothing.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor

from memlib.data._copies import NEAR, copies
from memlib.data.images import Images, subset
from memlib.errors import Refused

_HALVES = 20_231  # the seed of the two halves; another one would mix images of the two


def split(
    images: Images,
    sizes: dict[str, int],
    half: Literal["explore", "report"] = "report",
    seed: int = 0,
    near: float = NEAR,
    flexible: str | None = None,
) -> dict[str, Images]:
    """Disjoint random parts of the given sizes, by name, drawn by `seed` from one half of the images.

    The halves are the same for every seed. Settings are chosen on `explore`; numbers are reported from `report`, which
    gets the extra image if the number is odd. Copies of one image stand in one half and in one part; those that would
    exceed the size of a part are left out of all parts.

    Arguments:
        images: N images.
        sizes: the number of images of each part, by its name.
        half: "explore" or "report".
        seed: draws the parts within the half.
        near: how far apart copies of one image may be, see `memlib.data.copies`; 0 means equal.
        flexible: the name of a part that is made smaller where copies leave too few images for all.

    Raises:
        Refused: for a size below 1, for parts that do not fit into the half, and for another half.
    """
    if half not in ("explore", "report"):
        raise Refused(f"the half is 'explore' or 'report', not {half!r}")
    for name, size in sizes.items():
        if not size >= 1 or size != int(size):
            raise Refused(f"the part {name!r} has {size} images: give a whole number from 1")
    sizes = {name: int(size) for name, size in sizes.items()}
    group, middle = copies(images.images, near), len(images) // 2
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_HALVES))
    (explore,), report = _dealt(order, group, [middle], whole=True)
    pool = explore if half == "explore" else report
    distinct, lacking = (
        len(group.unique()),
        sum(sizes.values()) - (middle if half == "explore" else len(order) - middle),
    )
    wanted = " + ".join(f"{size} {name}" for name, size in sizes.items())
    if lacking > 0:
        room = f"the {half} half, which has {len(pool)} of {len(images)}"
        raise Refused(f"{wanted} images do not fit into {room}: give smaller sizes")
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    while True:
        parts, _ = _dealt(pool, group, list(sizes.values()))
        lacking = sum(sizes.values()) - sum(map(len, parts))
        if not lacking:
            return {name: images[part] for name, part in zip(sizes, parts, strict=True)}
        if flexible is None or sizes[flexible] <= lacking:
            raise Refused(
                f"{wanted} images cannot be drawn from the {half} half of {images.source}: only {distinct} of its "
                f"{len(images)} images are distinct, and copies of one image stand in one part; remove the copies, "
                "give more images, or ask for fewer"
            )
        sizes[flexible] -= lacking


def audit_split(
    images: Images,
    n: int = 0,
    half: Literal["explore", "report"] = "report",
    seed: int = 0,
    others: Images | None = None,
    reference: int = 64,
    near: float = NEAR,
) -> dict[str, Images]:
    """The four parts of an audit, all disjoint: `members`, `non_members` (as many), `reference` and `calibration`.

    Members are trained on. Non-members are scored like members, but no model ever sees them. Features are fitted on the
    reference part, thresholds on the calibration part. These two parts get the remaining images: the reference part a
    third of them, or `reference` images if that is more, but never more than half. Copies of one image stand in one
    part, see `split`; the calibration part is the smaller for them.

    Arguments:
        images: the images to split.
        n: the number of members. 0 means two sevenths of the half and at most 300, or all of `images` if `others` are
            given.
        half: see `split`.
        seed: draws the parts.
        others: images that the model never saw. All parts but the members are then drawn from them; copies of `images`
            among them are left out, with a warning.
        reference: the size of the reference part, see above.
        near: how far apart copies of one image may be, see `memlib.data.copies`; 0 means equal.

    Raises:
        Refused: if too few held-out images are left.
    """
    wanted = n or (len(images) if others else max(1, min(300, len(images) // 7)))
    others = others and _unseen(images, others, near)
    source = images if others is None else others
    room = len(source) // 2 - wanted * (1 if others is not None else 2)
    if room < 4:
        raise Refused(
            f"{wanted} members and {wanted} non-members leave {max(room, 0)} held-out images of {len(source)}, half of "
            "which are set aside: give fewer members, or more images"
        )
    kept = max(room // 3, min(reference, room // 2))
    unseen = {"non_members": wanted, "reference": kept, "calibration": room - kept}
    options = {"near": near, "flexible": "calibration"}
    if others is None:
        parts = split(images, {"members": wanted} | unseen, half, seed, **options)
    elif wanted > len(images):
        raise Refused(f"{wanted} members cannot be drawn from {len(images)} images: give fewer, or 0 for all")
    else:
        parts = {"members": images[subset(len(images), wanted, seed)]} | split(others, unseen, half, seed, **options)
    for name in ("reference", "calibration"):
        first = copies(parts[name].images, near).unique()
        parts[name] = parts[name][first] if len(first) < len(parts[name]) else parts[name]
    return parts


def _unseen(images: Images, others: Images, near: float) -> Images:
    """`others` without the copies of `images`, which a model of these has seen."""
    if images.images.shape[1:] != others.images.shape[1:]:
        shapes = [" x ".join(map(str, tuple(one.images.shape[1:]))) for one in (others, images)]
        raise Refused(
            f"held-out images of {others.source} are {shapes[0]}, images of {images.source} are {shapes[1]}: give both "
            "one size and one number of channels"
        )
    group = copies(torch.cat([images.images, others.images]), near)
    seen = torch.isin(group[len(images) :], group[: len(images)])
    if not seen.any():
        return others
    if seen.all():
        raise Refused(
            f"all {len(others)} held-out images of {others.source} are copies of images of {images.source}: give "
            "images that the model never saw"
        )
    warnings.warn(
        f"{int(seen.sum())} of {len(others)} held-out images of {others.source} are copies of images of "
        f"{images.source}, and are left out",
        stacklevel=3,  # at the caller of audit_split
    )
    return others[~seen]


def _dealt(order: Tensor, group: Tensor, sizes: list[int], whole: bool = False) -> tuple[list[Tensor], Tensor]:
    """Parts of at most the given sizes, and what is in none of them: images (M,) in their order, by groups of copies.

    A group goes to the first part that has room for all of it. If a part is not full then, it takes some of a group and
    the rest of that group goes nowhere; with `whole` it stays smaller.
    """
    groups: dict[int, list[int]] = {}
    for image, name in zip(order.tolist(), group[order].tolist(), strict=True):
        groups.setdefault(name, []).append(image)
    rest, parts = list(groups.values()), []
    for size in sizes:
        part, later = [], []
        for one in rest:
            if len(part) + len(one) <= size:
                part.extend(one)
            else:
                later.append(one)
        if len(part) < size and later and not whole:
            part.extend(later.pop(0)[: size - len(part)])
        parts.append(torch.tensor(part, dtype=torch.int64))
        rest = later
    return parts, torch.tensor([image for one in rest for image in one], dtype=torch.int64)
