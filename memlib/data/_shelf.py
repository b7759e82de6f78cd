"""Image files that are read once and then kept on disk as they are stored: 8 bits a channel, some megabytes a file.

A kept file is named by what it was made from: path, size and times of each image, and how it was read. So a run that
was killed goes on where it was, and an image that changed is read again, with the few that lie beside it. It carries a
checksum, which each process looks at once: what a disk has garbled is read again too.
"""

import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from memlib.cache.atomic import replace_file, writing
from memlib.cache.store import folder
from memlib.data._decoding import Pixels, decoded_files
from memlib.errors import Refused
from memlib.stored import Stored, array, files

Found: TypeAlias = tuple[bool, int] | None
"""Whether a file has several frames, and its highest level if it has 16 bits, else -1; None for a broken file."""
How: TypeAlias = tuple[int | None, float | None, int | None]
"""Size, crop fraction and bits, as `decoded` takes them."""

_BYTES = 1 << 23  # of a kept file
_VERSION = 2  # of what is in it
_INTACT: set[tuple[str, int, int]] = set()  # kept files whose checksum was right: path, size and time of change


class Shelf(NamedTuple):
    """Images on disk (N, C, H, W), what is known of each of all files, and where further facts about them are kept."""

    images: Stored
    found: list[Found]
    note: Path


def shelved(root: Path, paths: Sequence[Path], how: How, skip_broken: bool, many: int) -> Shelf:
    """The given image files below `root`, on disk, in their order; those that are not there yet are read.

    Arguments:
        root: the folder that they are in, for messages.
        paths: the files.
        how: see `decoded`.
        skip_broken: leave out files that cannot be read.
        many: the number of files from which a progress bar is shown.

    Raises:
        Refused: for images of several sizes, for a broken file unless `skip_broken` is set, and if the disk is full.
    """
    home = folder() / "images" / _digest(how, *map(str, paths))
    count = _together(paths[0], how)
    groups = [paths[first : first + count] for first in range(0, len(paths), count)]
    places = [home / f"{_digest(_VERSION, how, [_stamp(path) for path in group])}.safetensors" for group in groups]
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "reading.lock"):  # a second run waits, and finds all there
        _fill(root, list(zip(places, groups, strict=True)), how, skip_broken, many)
    found = [_found(place, len(group)) or [] for place, group in zip(places, groups, strict=True)]
    if not skip_broken:
        _refuse_broken(groups, found, how)
    kept = [place for place, some in zip(places, found, strict=True) if any(one is not None for one in some)]
    if not kept:
        return Shelf(Stored([numpy.empty((0, 1, 1, 1), numpy.uint8)]), [one for some in found for one in some], home)
    images = _uniform(root, kept, dict(zip(places, zip(groups, found, strict=True), strict=True)))
    for old in set(home.glob("*.safetensors")) - set(places):  # of images that have changed since
        old.unlink(missing_ok=True)
    return Shelf(images, [one for some in found for one in some], home / f"{_digest(*(one.name for one in kept))}.json")


def unlike(root: Path, first: Path, size: Sequence[int], other: Path, another: Sequence[int]) -> Refused:
    """The refusal for two files below `root` of other sizes, (H, W) each."""
    (high, wide), (other_high, other_wide) = size, another
    one, two = (str(path.relative_to(root)) for path in (first, other))
    return Refused(
        f"images differ in size: {one!r} is {wide}x{high} and {two!r} is {other_wide}x{other_high}; give a size to "
        "resample them to"
    )


def _fill(root: Path, wanted: list[tuple[Path, Sequence[Path]]], how: How, skip_broken: bool, many: int) -> None:
    """Read the groups of files whose place is empty or damaged, and write one file for each."""
    missing = [(place, group) for place, group in wanted if _found(place, len(group)) is None]
    if damaged := [place for place, _ in missing if place.exists()]:
        told = f"{len(damaged)} of {len(wanted)} kept files of images are damaged, as {str(damaged[0])!r}"
        warnings.warn(f"{told}: these images are read again", stacklevel=6)  # at the caller of data.load
    total, left = (sum(len(group) for _, group in some) for some in (wanted, missing))
    read = decoded_files([path for _, group in missing for path in group], *how)
    # TQDM_DISABLE acts on a bar only if nobody passes `disable`.
    bar = tqdm(total=total, initial=total - left, desc="reading images", unit="image") if left >= many else None
    for place, group in missing:
        tensors = _read(root, group, read, skip_broken)
        replace_file(place, lambda beside, tensors=tensors: save_file(tensors, beside))
        if bar is not None:
            bar.update(len(group))
    if bar is not None:
        bar.close()


def _read(
    root: Path, group: Sequence[Path], read: Iterator[tuple[Pixels, bool, bool] | Refused], skip_broken: bool
) -> dict[str, torch.Tensor]:
    """Pixels (B, C, H, W) of the files of a group that can be read, and what is known of each, (B', 3)."""
    arrays, names, found = [], [], numpy.zeros((len(group), 3), numpy.int32)
    for number, path in enumerate(group):
        one = next(read)
        if isinstance(one, Refused):
            if not skip_broken:
                raise one
            continue
        array, several, wide = one
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise unlike(root, names[0], arrays[0].shape[:2], path, array.shape[:2])
        arrays.append(array)
        names.append(path)
        found[number] = (1, several, int(array.max()) if wide else -1)
    shape = (*(arrays[0].shape[:2] if arrays else (1, 1)),)
    channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    pixels = numpy.empty((len(arrays), channels, *shape), numpy.uint8)
    for row, array in zip(pixels, arrays, strict=True):
        row[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    kept = {"images": pixels, "found": found, "checksum": _checksum(pixels, found)}
    return {name: torch.from_numpy(one) for name, one in kept.items()}


def _found(place: Path, count: int) -> list[Found] | None:
    """What is known of each of `count` files; None where the kept file is absent or damaged."""
    try:
        rows = array(place, "found").tolist()
        whole = len(rows) == count and len(files([place])) == sum(there for there, _, _ in rows) and _intact(place)
    except (OSError, KeyError, ValueError, Refused):
        return None
    return [(bool(several), level) if there else None for there, several, level in rows] if whole else None


def _intact(place: Path) -> bool:
    """Whether a kept file has the checksum that it states. It is read for that once in each process."""
    told = place.stat()
    name = str(place), told.st_size, told.st_mtime_ns
    if name not in _INTACT:
        if _checksum(array(place, "images"), array(place, "found")) != array(place, "checksum"):
            return False
        _INTACT.add(name)
    return True


def _checksum(*arrays: NDArray) -> NDArray[numpy.int32]:
    """CRC-32 of the shapes and bytes of arrays of any shape, (1,): faster than a disk, and it sees any flipped bit."""
    total = 0
    for one in arrays:
        total = zlib.crc32(one.data, zlib.crc32(str(one.shape).encode(), total))
    return numpy.array([total], numpy.uint32).view(numpy.int32)


def _refuse_broken(groups: Sequence[Sequence[Path]], found: list[list[Found]], how: How) -> None:
    """Raise what reading the first broken file raises: a run with skip_broken may have left it out."""
    for group, some in zip(groups, found, strict=True):
        for path, one in zip(group, some, strict=True):
            if one is None and isinstance(again := next(decoded_files([path], *how)), Refused):
                raise again


def _uniform(root: Path, kept: Sequence[Path], what: dict[Path, tuple[Sequence[Path], list[Found]]]) -> Stored:
    """The images of all kept files as one set, or Refused where their sizes differ."""
    first: tuple[Path, tuple[int, ...]] | None = None
    for place in kept:
        size = tuple(files([place]).shape[2:])
        group, some = what[place]
        name = next(path for path, one in zip(group, some, strict=True) if one is not None)
        if first is not None and size != first[1]:
            raise unlike(root, *first, name, size)
        first = first or (name, size)
    return files(kept)


def _together(path: Path, how: How) -> int:
    """How many images one kept file has."""
    size = how[0]
    if size is None:
        try:
            with Image.open(path) as image:
                size = max(image.size)
        except Exception:  # decoders raise many; the file is refused when it is read
            size = 256
    return max(1, _BYTES // (3 * size * size))


def _stamp(path: Path) -> tuple[str, int, int, int]:
    """What changes with a file: a copy with an old date has a new time of change."""
    try:
        told = path.stat()
    except OSError:  # refused when it is read
        return str(path), -1, -1, -1
    return str(path), told.st_size, told.st_mtime_ns, told.st_ctime_ns


def _digest(*things: object) -> str:
    digest = hashlib.sha256()
    for thing in things:
        digest.update(json.dumps(thing).encode() + b"\n")
    return digest.hexdigest()[:32]
