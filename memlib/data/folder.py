"""Your own images from a folder: PNG, JPEG, WebP and BMP, labelled by subfolder."""

import warnings
from collections.abc import Callable
from pathlib import Path

from memlib.data._tree import tree
from memlib.data.files import KINDS, gather, located
from memlib.data.images import Images, in_order
from memlib.errors import Refused

_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def load(
    place: str,
    size: int | None,
    *,
    bits: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    stored: bool = False,
) -> Images:
    """The images in the folder `place`, (N, C, size, size), in the order of their paths, with the labels of `classes`.

    For `size`, `bits`, `limit`, `seed`, `skip_broken` and `stored` see `memlib.data.files.gather`.

    Raises:
        Refused: for a missing or empty folder, and as `classes` and `gather` do.
    """
    root = located(place, "folder")
    files, labels, names = classes(root)
    if set(names) <= _PARTS:
        warnings.warn(
            f"the labels of {str(root)!r} are {', '.join(names)}, which are parts of a set rather than classes: give "
            f"folder:PATH/{names[0]} for one part",
            stacklevel=3,  # at the caller of data.load
        )
    options = {"bits": bits, "limit": limit, "seed": seed, "skip_broken": skip_broken, "stored": stored}
    return gather(f"folder:{place}", root, files, labels, names, size, **options)


def classes(
    root: Path, name: Callable[[list[str]], str] = lambda folders: folders[0]
) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The image files below `root` in the order of their paths, the label of each, and the names of the labels.

    Labels are the subfolders of `root` in sorted order, by value if all are numbers; a subfolder labels all files below
    it. A folder without subfolders is one class named ''. Links are followed, but each folder is read once. Hidden
    files and folders are skipped; images of other kinds, and links that lead nowhere or to a folder that is read
    anyway, are passed over with a warning.

    Arguments:
        root: the folder.
        name: returns the name of the label from the folders between `root` and a file; by default the first of them.

    Raises:
        Refused: if there is no image, if a subfolder is empty, and if there are images both in and outside subfolders.
    """
    found = tree(root)
    loose = sorted(path[0] for path in found.files if len(path) == 1)
    below = sorted(path for path in found.files if len(path) > 1)
    over = f"; {found.told()}" if found.passed else ""
    if not found.files:
        kinds = ", ".join(sorted(KINDS))
        raise Refused(f"the folder {str(root)!r} holds no image: looked for {kinds}, also in subfolders{over}")
    if loose and below:
        where = f"{str(root)!r} has images both in subfolders and outside them, such as {loose[0]!r}"
        raise Refused(f"{where}: move these into a subfolder, or remove them")
    if not loose and (empty := sorted(found.folders - {path[0] for path in below})):
        raise Refused(f"the folder {str(root / empty[0])!r} holds no image of its class: fill it, or remove it{over}")
    if over:
        warnings.warn(f"{str(root)!r}: {found.told()}", stacklevel=4)  # at the caller of data.load
    paths = below or [[file] for file in loose]
    named = [name(path[:-1]) if path[:-1] else "" for path in paths]
    names = in_order(named)
    label = {name: index for index, name in enumerate(names)}
    return [str(Path(*path)) for path in paths], [label[name] for name in named], names


def part(root: Path, split: str | None, parts: tuple[str, ...], kind: str) -> Path:
    """The folder of one part of a set: below `root` if the parts have folders there, else `root` itself.

    Arguments:
        root: the folder of the set.
        split: the part; None is the first of `parts`.
        parts: the parts that the set has.
        kind: the name of the set in an error message.

    Raises:
        Refused: for another split, and for one that has no folder.
    """
    if split is not None and split not in parts:
        raise Refused(f"{kind} has no split {split!r}: give {' or '.join(parts)}")
    there = [name for name in parts if (root / name).is_dir()]
    if not there and split is None:
        return root
    wanted = split or parts[0]
    if wanted not in there:
        instead = f"give split={there[0]}" if there else "leave split out to read its class folders"
        raise Refused(f"{str(root)!r} has no folder {wanted!r}: {instead}")
    return root / wanted
