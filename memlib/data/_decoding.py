"""One image file, or many of them in several processes, as arrays in 256 levels."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from memlib.errors import Refused

_GREY = {"1", "L", "LA"}  # Pillow's modes without colour
_WHOLE_PROCESS = 1000  # number of files from which more processes than one read
_PART = 32  # files that a process reads in one go
_WORKERS = 16  # processes at most; fewer where torch has fewer threads

Pixels = NDArray[numpy.uint8]


def decoded(
    image: Image.Image, size: int | None, crop_fraction: float | None = None, bits: int | None = None
) -> Pixels:
    """One image in 256 levels, (H, W) if it is stored without colour, else (H, W, 3).

    Transparent images are placed on white. 16 bits are scaled to 8.

    Arguments:
        image: the image as Pillow opened it.
        size: resample the central square to this size with Pillow's Lanczos filter, which is antialiased.
        crop_fraction: the side of the central square as a fraction of the shorter side, 1 by default. Without `size`,
            the square is cut out and its pixels are kept.
        bits: how many of 16 bits hold the image; None is all.
    """
    if image.mode.startswith("I"):  # convert() would clip 16 bits, not scale them
        values = numpy.asarray(image).clip(0, 65535)
        stretched = values // 257 if bits is None else (values * (255 / (2**bits - 1))).round().clip(0, 255)
        image = Image.fromarray(stretched.astype(numpy.uint8))
    plain = "L" if image.mode in _GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(plain)
    side = min(image.size) * (crop_fraction or 1)
    if size is not None:
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    elif crop_fraction is not None:
        whole = max(1, round(side))
        left, top = (image.width - whole) // 2, (image.height - whole) // 2
        image = image.crop((left, top, left + whole, top + whole))
    return numpy.asarray(image)


class _Parts(Dataset):
    """What `_read` returns or raises for each file, (`_PART` files a part), for worker processes to take."""

    def __init__(self, paths: Sequence[Path], *how: Any) -> None:
        self.paths, self.how = paths, how

    def __len__(self) -> int:
        return -(-len(self.paths) // _PART)

    def __getitem__(self, part: int) -> list:
        return [self.read(path) for path in self.paths[part * _PART : (part + 1) * _PART]]

    def read(self, path: Path) -> tuple[Pixels, bool, bool] | Refused:
        try:
            return _read(path, *self.how)
        except Refused as refused:
            return refused


def decoded_files(
    paths: Sequence[Path], size: int | None, crop_fraction: float | None, bits: int | None
) -> Iterator[tuple[Pixels, bool, bool] | Refused]:
    """The array of each file, whether it has several frames, and whether it has 16 bits; or why it cannot be read.

    They come in their order; many are read by one process a thread of torch. See `decoded`.
    """
    files = _Parts(paths, size, crop_fraction, bits)
    parts: Iterable[list] = map(files.__getitem__, range(len(files)))
    workers = min(_WORKERS, torch.get_num_threads())
    # Threads would wait for each other: half of the time is spent inside the interpreter.
    if len(paths) >= _WHOLE_PROCESS and workers > 1 and sys.platform == "linux":
        parts = DataLoader(files, None, num_workers=workers, collate_fn=list, multiprocessing_context="fork")
    return itertools.chain.from_iterable(parts)


def _read(path: Path, size: int | None, crop_fraction: float | None, bits: int | None) -> tuple[Pixels, bool, bool]:
    """The image as `decoded`, whether its file has several frames, and whether it has 16 bits."""
    try:
        # Not by its name: Pillow would map some TIFFs into memory, and leave their pixels unturned.
        with open(path, "rb") as handle, Image.open(handle) as file:
            # A phone's JPEG may carry previews as further frames.
            several = getattr(file, "n_frames", 1) > 1 and file.format != "MPO"
            deep = file.mode.startswith("I") or ";16" in str(file.tile)
            image = ImageOps.exif_transpose(file)  # apply the EXIF orientation
            image.load()
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        why = (
            "it is not an image, or its format is unknown" if isinstance(error, UnidentifiedImageError) else str(error)
        )
        raise Refused(
            f"{str(path)!r} cannot be read as an image: {why}; repair it, remove it, or give "
            "skip_broken=yes to leave such files out"
        ) from error
    if deep and bits and not image.mode.startswith("I"):
        raise Refused(f"{str(path)!r} has 16 bits a colour, of which 8 are read: convert it, or leave bits={bits} out")
    return decoded(image, size, crop_fraction, bits), several, deep
