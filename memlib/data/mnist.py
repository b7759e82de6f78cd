"""MNIST (LeCun et al. 1998) and data sets in its format: IDX files, plain or gzipped, or NumPy archives."""

import gzip
import math
import os
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray

from memlib.data.files import located, resampled
from memlib.data.images import Images, collect, subset
from memlib.errors import Refused

_STEMS = {"train": "train", "test": "t10k"}
_ENOUGH = 20  # ones that show which way up the images are


def load(
    place: str,
    size: int | None,
    *,
    split: str = "train",
    transposed: bool | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Images:
    """Grey digits, (N, 1, 28, 28) or (N, 1, size, size), labels 0 to 9: 60,000 for training, 10,000 in split=test.

    `place` is one of these:

    - a folder with `train-images-idx3-ubyte` and the other IDX files. A dot for the second dash, and .gz, are
      understood, and the folders raw/ and MNIST/raw/ are searched.
    - a folder with `train.npz` (arrays x and y) or `mnist.npz` (arrays x_train and y_train).
    - such an archive itself.
    - a folder with `emnist-digits-train-images-idx3-ubyte` and the others of EMNIST (Cohen et al. 2017), which are
      stored column by column and are turned upright.

    Arguments:
        place: see above.
        size: pixels a side; None keeps 28.
        split: "train" or "test".
        transposed: whether the images are stored column by column. None goes by the name of the file, and warns where
            the ones lie on their side.
        limit, seed: how many images to draw, and the seed of the draw.

    Raises:
        Refused: for another split, for missing files, and for files that are truncated, of another kind, or do not
            match each other.
    """
    if split not in _STEMS:
        raise Refused(f"MNIST has no split {split!r}: give train or test")
    root = Path(os.path.expanduser(place))
    root = root if place.endswith(".npz") and os.path.isfile(root) else located(place, "mnist")
    archives = (
        [root] if root.is_file() else [path for path in (root / f"{split}.npz", root / "mnist.npz") if path.exists()]
    )
    images, labels, emnist = (*_archived(archives[0], split), False) if archives else _idx_pair(root, split)
    if images.dtype != numpy.uint8 or images.ndim != 3 or not images.size:
        raise Refused(
            f"{place!r} has images of shape {images.shape} and type {images.dtype}, not (N, H, W) and uint8: "
            "download it again"
        )
    if labels.shape != (len(images),):
        raise Refused(f"{place!r} has {len(images)} images and {labels.size} labels for {split}: download it again")
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() <= 9:
        raise Refused(
            f"{place!r} has labels from {labels.min()} to {labels.max()}, not integers from 0 to 9: give a "
            "set of ten classes"
        )
    if transposed is None and not emnist and _sideways(images, labels):
        told = f"mnist:{place}: the ones of {len(images)} images lie on their side, as in EMNIST's files"
        warnings.warn(f"{told}: give transposed=yes, or transposed=no", stacklevel=3)  # at the caller of data.load
    if emnist if transposed is None else transposed:
        images = images.transpose(0, 2, 1)
    chosen = subset(len(images), limit, seed)
    pixels = resampled(images[chosen.numpy()], size)
    return collect(pixels, torch.from_numpy(labels.astype(numpy.int64))[chosen], tuple("0123456789"), f"mnist:{place}")


def _archived(path: Path, split: str) -> tuple[NDArray, NDArray]:
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            for x, y in (("x", "y"), (f"x_{split}", f"y_{split}")):
                if x in archive and y in archive:
                    return archive[x], archive[y]
            held = ", ".join(archive.files) or "nothing"
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Refused(f"{str(path)!r} is damaged, or is not a NumPy archive of numbers: create it again") from error
    raise Refused(f"{str(path)!r} holds {held}, not x and y or x_{split} and y_{split}: rename its arrays")


def _sideways(images: NDArray, labels: NDArray) -> bool:
    """Whether the ones among images (N, H, W) are wider than they are high."""
    ones = images[labels == 1][:500].astype(numpy.float64)
    if len(ones) < _ENOUGH or not ones.any():
        return False
    high, wide = (numpy.sqrt(_variance(ones.sum(axis))) for axis in (2, 1))
    return bool(numpy.median(wide) > 1.5 * numpy.median(high))


def _variance(ink: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The variance of the place of the ink (N, L) along one axis, (N,)."""
    place, whole = numpy.arange(ink.shape[1]), ink.sum(1).clip(1)
    return (ink @ place**2) / whole - ((ink @ place) / whole) ** 2


def _idx_pair(root: Path, split: str) -> tuple[NDArray, NDArray, bool]:
    """Images, labels, and whether they are EMNIST's."""
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        for stem in (_STEMS[split], f"emnist-digits-{split}", f"emnist-mnist-{split}"):
            found = [_named(folder, f"{stem}-{what}", n) for what, n in (("images", 3), ("labels", 1))]
            images, labels = found
            if images and labels:
                return _idx(images, 3), _idx(labels, 1), stem != _STEMS[split]
            if alone := images or labels:
                lacks = "labels-idx1" if images else "images-idx3"
                raise Refused(f"{str(folder)!r} has {alone.name!r} but no {stem}-{lacks}-ubyte: download it too")
    raise Refused(
        f"{str(root)!r} has no {_STEMS[split]}-images-idx3-ubyte (or .gz), {split}.npz or mnist.npz: give "
        "mnist:PATH with the folder that has one"
    )


def _named(folder: Path, stem: str, dimensions: int) -> Path | None:
    names = (f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _idx(path: Path, dimensions: int) -> NDArray[numpy.uint8]:
    """An IDX file: magic 0, 0, 8 (bytes), dimensions; then the sizes, big-endian, four bytes each; then the bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{str(path)!r} is truncated, or is not a gzip file: download it again") from error
    magic, start = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic:
        kind = "images" if dimensions == 3 else "labels"
        raise Refused(
            f"{str(path)!r} begins with {content[:4].hex() or 'nothing'}, not with {magic.hex()} as IDX "
            f"files of {kind} do: download it again"
        )
    shape = tuple(numpy.frombuffer(content[4:start].ljust(4 * dimensions, b"\0"), ">u4").tolist())
    wanted = start + math.prod(shape)
    if len(content) != wanted:
        raise Refused(f"{str(path)!r} has {len(content)} bytes where its header promises {wanted}: download it again")
    return numpy.frombuffer(content, numpy.uint8, offset=start).reshape(shape)
