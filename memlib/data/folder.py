"""Your own images from a folder: PNG, JPEG, WebP and BMP, labelled by subfolder."""

import os
from collections.abc import Callable
from pathlib import Path

from memlib.data.files import KINDS, gather, located
from memlib.data.images import Images
from memlib.errors import Refused


def load(place: str, size: int | None, *, limit: int | None = None, seed: int = 0, skip_broken: bool = False) -> Images:
    """The images in the folder `place`, (N, C, size, size), in the order of their paths, with the labels of `classes`.

    For `size`, `limit`, `seed` and `skip_broken` see `memlib.data.files.gather`.

    Raises:
        Refused: for a missing or empty folder, and as `classes` and `gather` do.
    """
    root = located(place, "folder")
    return gather(f"folder:{place}", root, *classes(root), size, limit=limit, seed=seed, skip_broken=skip_broken)


def classes(
    root: Path, name: Callable[[list[str]], str] = lambda folders: folders[0]
) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The image files below `root` in the order of their paths, the label of each, and the names of the labels.

    Labels are the subfolders of `root` in sorted order; a subfolder labels all files below it. A folder without
    subfolders is one class named ''. Hidden folders and files of other kinds are skipped.

    Arguments:
        root: the folder.
        name: returns the name of the label from the folders between `root` and a file; by default the first of them.

    Raises:
        Refused: if there is no image, if a subfolder is empty, and if there are images both in and outside subfolders.
    """
    entries = [entry for entry in _listed(root) if not entry.name.startswith(".")]
    loose = sorted(entry.name for entry in entries if _is_image(entry.name) and entry.is_file())
    below = {entry.name: _files(root / entry.name) for entry in entries if entry.is_dir()}
    if not loose and not any(below.values()):
        kinds = ", ".join(sorted(KINDS))
        raise Refused(f"the folder {str(root)!r} holds no image: looked for {kinds}, also in subfolders")
    if loose and any(below.values()):
        where = f"{str(root)!r} has images both in subfolders and outside them, such as {loose[0]!r}"
        raise Refused(f"{where}: move these into a subfolder, or remove them")
    if not loose and (empty := sorted(folder for folder, files in below.items() if not files)):
        raise Refused(f"the folder {str(root / empty[0])!r} holds no image of its class: fill it, or remove it")
    paths = sorted([folder, *file] for folder, files in below.items() for file in files) or [[file] for file in loose]
    named = [name(path[:-1]) if path[:-1] else "" for path in paths]
    names = tuple(sorted(set(named)))
    label = {name: index for index, name in enumerate(names)}
    return [os.path.join(*path) for path in paths], [label[name] for name in named], names


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


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise Refused(f"the folder {str(folder)!r} cannot be listed: {error.strerror}; make it readable") from error


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in KINDS


def _files(folder: Path) -> list[list[str]]:
    """The images below a folder, each as the parts of its path from there. Hidden folders are skipped."""
    found = []
    for entry in _listed(folder):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            found.extend([entry.name, *file] for file in _files(folder / entry.name))
        elif _is_image(entry.name) and entry.is_file():
            found.append([entry.name])
    return found
