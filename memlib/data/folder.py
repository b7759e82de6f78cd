"""Anyone's images from a folder: PNG, JPEG, WebP and BMP, labels by subfolder."""

import os
from collections.abc import Callable
from pathlib import Path

from memlib.data.files import KINDS, gather, located
from memlib.data.images import Images
from memlib.errors import Refused


def load(place: str, size: int | None, *, limit: int | None = None, seed: int = 0, skip_broken: bool = False) -> Images:
    """The images under the folder `place`, (N, C, size, size), in order of their paths; labels as in `classes`.

    `limit`, `seed`, `skip_broken`, cutting and resampling are those of `memlib.data.files.gather`. Raises Refused for a
    folder that is missing or has no images, and as `classes` and `gather` do.
    """
    root = located(place, "folder")
    return gather(f"folder:{place}", root, *classes(root), size, limit=limit, seed=seed, skip_broken=skip_broken)


def classes(
    root: Path, name: Callable[[list[str]], str] = lambda folders: folders[0]
) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The image files under `root` in order of their paths, the label of each, and the names of the labels.

    Labels are the subfolders of `root` in sorted order, each with all files below it; `name` may say otherwise, of the
    folders from `root` to a file. A folder without subfolders is one class named ''. Files in hidden folders and of
    other kinds are passed over. Raises Refused for no image, an empty subfolder, and images beside subfolders.
    """
    entries = [entry for entry in _listed(root) if not entry.name.startswith(".")]
    loose = sorted(entry.name for entry in entries if _is_image(entry.name) and entry.is_file())
    below = {entry.name: _files(root / entry.name) for entry in entries if entry.is_dir()}
    if not loose and not any(below.values()):
        kinds = ", ".join(sorted(KINDS))
        raise Refused(f"the folder {str(root)!r} holds no image: looked for {kinds}, also in subfolders")
    if loose and any(below.values()):
        where = f"{str(root)!r} has images in subfolders and, such as {loose[0]!r}, beside them"
        raise Refused(f"{where}: give these a subfolder, or take them out")
    if not loose and (empty := sorted(folder for folder, files in below.items() if not files)):
        raise Refused(f"the folder {str(root / empty[0])!r} holds no image of its class: fill it or take it out")
    paths = sorted([folder, *file] for folder, files in below.items() for file in files) or [[file] for file in loose]
    named = [name(path[:-1]) if path[:-1] else "" for path in paths]
    names = tuple(sorted(set(named)))
    label = {name: index for index, name in enumerate(names)}
    return [os.path.join(*path) for path in paths], [label[name] for name in named], names


def part(root: Path, split: str | None, parts: tuple[str, ...], kind: str) -> Path:
    """The folder of one part of a set: below `root` if the parts have folders there, else `root` itself.

    The first of `parts` where `split` is None. Raises Refused for another split and for one that has no folder.
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
    """The images below a folder, each as the parts of its path from there; hidden folders are passed over."""
    found = []
    for entry in _listed(folder):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            found.extend([entry.name, *file] for file in _files(folder / entry.name))
        elif _is_image(entry.name) and entry.is_file():
            found.append([entry.name])
    return found
