"""The image files below a folder: which links are followed, and what is passed over."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from memlib.data.files import KINDS
from memlib.errors import Refused

_OTHERS = {
    ".avif", ".cr2", ".dcm", ".dng", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl", ".nef", ".npy",
    ".pbm", ".pgm", ".pnm", ".ppm", ".raw", ".svg", ".tga", ".tif", ".tiff",
}  # fmt: skip
_WHY = {
    "kind": ("file of a kind that is not read", "files of kinds that are not read"),
    "nowhere": ("link that leads nowhere", "links that lead nowhere"),
    "again": ("link to a folder that is read anyway", "links to folders that are read anyway"),
}


@dataclass(frozen=True)
class Tree:
    """What lies below a folder, each path as its parts from there.

    Attributes:
        files: the images.
        folders: the names of the folders directly below.
        passed: what was passed over, by reason.
    """

    files: list[list[str]]
    folders: set[str]
    passed: dict[str, list[str]]

    def told(self) -> str:
        """How many of each were passed over, with the name of the first, in words."""
        counts = [f"{len(names)} {_WHY[why][len(names) > 1]} ({min(names)!r})" for why, names in self.passed.items()]
        return f"passed over {' and '.join(counts)}"


def tree(root: Path) -> Tree:
    """The images below a folder. Links to files and folders are followed; a folder is read once, and not via a loop.

    Raises Refused for a folder that cannot be listed.
    """
    files, folders, passed = [], set(), {}
    above, seen = os.path.realpath(root), set()
    waiting, links = [[]], []  # folders first, so that a folder is read under its own name and not under a link's
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(root.joinpath(*here))
        if real in seen or (here and f"{above}{os.sep}".startswith(f"{real.rstrip(os.sep)}{os.sep}")):
            passed.setdefault("again", []).append(os.path.join(*here))
            continue
        seen.add(real)
        folders.update(here if len(here) == 1 else ())
        for entry in _listed(root.joinpath(*here)):
            if entry.name.startswith("."):
                continue
            path, kind = [*here, entry.name], _kind(entry)
            if kind == "folder":
                (links if entry.is_symlink() else waiting).append(path)
            elif kind == "image":
                files.append(path)
            elif kind:
                passed.setdefault(kind, []).append(os.path.join(*path))
    return Tree(files, folders, passed)


def _kind(entry: os.DirEntry[str]) -> str:
    """image, folder, a reason to pass over it, or nothing for what is no image."""
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file():
            return "nowhere" if entry.is_symlink() else ""
    except OSError:  # a link to itself
        return "nowhere"
    ending = os.path.splitext(entry.name)[1].lower()
    if ending in KINDS:
        return "image"
    return "kind" if ending in _OTHERS or (not ending and _opens(entry.path)) else ""


def _opens(path: str) -> bool:
    """Whether a file without an ending is an image."""
    try:
        with Image.open(path):
            return True
    except Exception:  # whatever a decoder raises
        return False


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise Refused(f"the folder {str(folder)!r} cannot be listed: {error.strerror}; make it readable") from error
