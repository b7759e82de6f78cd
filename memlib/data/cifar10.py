"""CIFAR-10 (Krizhevsky 2009): the official binary or Python batches, or class folders."""

import pickletools
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray

from memlib.data.files import gather, located, resampled
from memlib.data.folder import classes, part
from memlib.data.images import Images, collect, subset
from memlib.errors import Refused

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes in the order of their labels."""

_PIXELS = 3 * 32 * 32
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def load(
    place: str,
    size: int | None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    stored: bool = False,
) -> Images:
    """Small photographs, (N, 3, 32, 32) or (N, 3, size, size): 50,000 for training, 10,000 in split=test.

    `place` is or holds cifar-10-batches-bin (data_batch_1.bin ...) or cifar-10-batches-py (data_batch_1 ...), or it has
    class folders, {train,test}/CLASS or only CLASS. The Python batches are pickles, and opening a pickle can run code,
    so only their bytes are searched. For `limit`, `seed`, `skip_broken` and `stored` see `memlib.data.files.gather`.

    Raises:
        Refused: for another split, missing batches, damaged files, folders of other classes, and as
            `memlib.data.files.gather` does.
    """
    batches = _BATCHES.get(split or "train")
    if batches is None:
        raise Refused(f"CIFAR-10 has no split {split!r}: give train or test")
    root = located(place, "cifar10")
    for suffix, inside in ((".bin", "cifar-10-batches-bin"), ("", "cifar-10-batches-py")):
        for folder in (root, root / inside):
            paths = [folder / (name + suffix) for name in batches]
            if any(path.is_file() for path in paths):
                return _batches(place, paths, size, limit, seed)
    folder = part(root, split, ("train", "test"), "CIFAR-10")
    files, labels, found = classes(folder)
    if strange := [name for name in found if name not in NAMES]:
        raise Refused(
            f"{str(folder)!r} has neither batches nor class folders of CIFAR-10, such as 'airplane', but "
            f"{strange[0]!r}: give folder:PATH for other classes"
        )
    labels = [NAMES.index(found[label]) for label in labels]
    options = {"limit": limit, "seed": seed, "skip_broken": skip_broken, "stored": stored, "colour": True}
    return gather(f"cifar10:{place}", folder, files, labels, NAMES, size, **options)


def _batches(place: str, paths: list[Path], size: int | None, limit: int | None, seed: int) -> Images:
    pixels, labels = [], []
    for path in paths:
        if not path.is_file():
            raise Refused(f"{str(path.parent)!r} lacks {path.name!r}: unpack the download again")
        batch = _binary(path) if path.suffix else _python(path)
        if batch[1].max() > 9:
            raise Refused(f"{str(path)!r} has the label {batch[1].max()}, beyond 9: download it again")
        pixels.append(batch[0])
        labels.append(batch[1])
    chosen = subset(sum(map(len, labels)), limit, seed)
    rows = numpy.concatenate(pixels)[chosen.numpy()].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    numbers = torch.from_numpy(numpy.concatenate(labels).astype(numpy.int64))[chosen]
    return collect(resampled(rows, size), numbers, NAMES, f"cifar10:{place}")


def _binary(path: Path) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]:
    """Rows of one label byte and 3,072 pixels, in planes of red, green, blue."""
    content = numpy.fromfile(path, numpy.uint8)
    if not content.size or content.size % (1 + _PIXELS):
        raise Refused(
            f"{str(path)!r} has {content.size} bytes, not a multiple of {1 + _PIXELS}, which a label and an "
            "image take: download it again"
        )
    rows = content.reshape(-1, 1 + _PIXELS)
    return rows[:, 1:], rows[:, 0]


def _python(path: Path) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]:
    """The same rows from a pickled {"data": array, "labels": list, ...}.

    `pickletools.genops` lists what a pickle *would* do and runs nothing. The labels are the integers between the string
    "labels" and the next string. The pixels are the one string whose length matches the number of labels.
    """
    strings, labels, listing = [], [], False
    try:
        for code, value, _ in pickletools.genops(path.read_bytes()):
            if isinstance(value, str | bytes | bytearray):  # Python 2 has strings for bytes, here read as Latin-1
                listing = value in ("labels", b"labels")
                strings.append(value)
            elif listing and "INT" in code.name:
                labels.append(value)
    except Exception as error:  # genops raises ValueError and, for damaged files, several others
        raise Refused(f"{str(path)!r} is truncated, or is not a batch of CIFAR-10: download it again") from error
    long = [text for text in strings if labels and len(text) == _PIXELS * len(labels)]
    try:
        pixels = long[0].encode("latin-1") if isinstance(long[0], str) else long[0]
        numbers = numpy.array(labels, numpy.uint8)
    except (IndexError, UnicodeEncodeError, OverflowError) as error:
        raise Refused(
            f"{str(path)!r} has {len(labels)} labels but no array of the same number of images: download it again, or "
            "the binary version"
        ) from error
    return numpy.frombuffer(pixels, numpy.uint8).reshape(-1, _PIXELS), numbers
