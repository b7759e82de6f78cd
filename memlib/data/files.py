"""From image files and raw pixels to `Images`: which files are read, and what happens to those that cannot be read."""

import itertools
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from memlib.data.images import Images, collect, subset
from memlib.errors import Refused

KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
"""Files with these endings, in lower case, are read as images."""

_GREY = {"1", "L", "LA"}  # Pillow's modes without colour
_DARK = 16  # files of 16 bits whose 8 upper bits stay below this hold 12 bits or fewer
_MANY = 200  # number of files from which a progress bar is shown
_WHOLE_PROCESS = 1000  # number of files from which more processes than one read
_PART = 32  # files that a process reads in one go
_WORKERS = 16  # processes at most; fewer where torch has fewer threads


def located(place: str, kind: str) -> Path:
    """The folder `place`, with ~ expanded. Raises Refused if there is no such folder."""
    root = Path(os.path.expanduser(place))
    if not place or not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise Refused(f"there is no folder {place!r}: give {kind}:PATH with the path of a folder of images")
    return root


def gather(
    source: str,
    root: Path,
    files: Sequence[str],
    labels: Sequence[int],
    names: tuple[str, ...],
    size: int | None,
    *,
    limit: int | None,
    seed: int,
    skip_broken: bool,
    crop_fraction: float | None = None,
    colour: bool = False,
    bits: int | None = None,
) -> Images:
    """The given files as `Images`, (N, C, size, size), in their order.

    EXIF orientation is applied, and the images are cropped and resampled as in `decoded`. They are grey (C = 1) if
    every file is grey and `colour` is not set, else RGB (C = 3). A warning says how many files have several frames, of
    which the first is read, and that files of 16 bits use few of them, so that all are dark.

    Arguments:
        source: what `Images.source` says.
        root: the folder that the files are in.
        files: their paths below `root`.
        labels: the label of each file.
        names: the name of each label.
        size: pixels a side; None keeps the stored size, which all files must then have.
        limit: how many files to open, drawn by `seed`; None opens all.
        seed: draws the files.
        skip_broken: leave out files that cannot be read, count them in `skipped`, and warn.
        crop_fraction: see `decoded`.
        colour: return RGB even if all files are grey.
        bits: how many bits of grey files of 16 bits hold the image, such as 12; None is all.

    Raises:
        Refused: for sizes that differ, and for a file that cannot be read unless `skip_broken` is set.
    """
    chosen: list[int] = subset(len(files), limit, seed).tolist()
    if bits is not None and not 1 <= bits <= 16:
        raise Refused(f"bits = {bits} of 16 cannot hold an image: give 1 to 16, or leave bits out")
    kept, arrays, broken = [], [], []
    framed, deep = [], []  # files of several frames, of 16 bits
    read = _each([root / files[position] for position in chosen], size, crop_fraction, bits)
    # TQDM_DISABLE acts on a bar only if nobody passes `disable`.
    bar = tqdm(chosen, desc="reading images", unit="image") if len(chosen) >= _MANY else chosen
    for position, found in zip(bar, read, strict=True):
        if isinstance(found, Refused):
            if not skip_broken:
                raise found
            broken.append(files[position])
            continue
        array, several, wide = found
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            (high, wide), (other_high, other_wide) = arrays[0].shape[:2], array.shape[:2]
            raise Refused(
                f"images differ in size: {files[kept[0]]!r} is {wide}x{high} and {files[position]!r} is "
                f"{other_wide}x{other_high}; give a size to resample them to"
            )
        kept.append(position)
        arrays.append(array)
        framed += [files[position]] if several else []
        deep += [(files[position], int(array.max()))] if wide else []
    if not kept:
        raise Refused(
            f"none of {len(chosen)} images in {str(root)!r} can be read, starting with {broken[0]!r}: give a "
            "folder of intact ones"
        )
    if broken:
        left_out = f"left out {len(broken)} of {len(chosen)} images, which cannot be read; the first is {broken[0]!r}"
        warnings.warn(f"{source}: {left_out}", stacklevel=4)  # at the caller of data.load
    if framed:
        told = f"{len(framed)} of {len(chosen)} files have several frames, of which the first is read, as {framed[0]!r}"
        warnings.warn(f"{source}: {told}", stacklevel=4)
    if deep and bits is None and (most := max(level for _, level in deep)) < _DARK:
        used = 8 + most.bit_length()
        told = f"{len(deep)} of {len(chosen)} files have 16 bits, as {deep[0][0]!r}, but use at most {used} of them"
        warnings.warn(f"{source}: {told}, so all are dark: give bits={used} if that is their range", stacklevel=4)
    images = scaled(arrays, 3 if colour or any(array.ndim == 3 for array in arrays) else 1)
    return collect(images, torch.tensor([labels[position] for position in kept]), names, source, len(broken))


def decoded(
    image: Image.Image, size: int | None, crop_fraction: float | None = None, bits: int | None = None
) -> NDArray[numpy.uint8]:
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


def scaled(arrays: Sequence[NDArray[numpy.uint8]] | NDArray[numpy.uint8], channels: int) -> Tensor:
    """Arrays of one size, (H, W) or (H, W, 3) in 0..255, as (N, channels, H, W) in [-1, 1]. Grey is repeated."""
    images = numpy.empty((len(arrays), channels, *arrays[0].shape[:2]), numpy.float32)
    for image, array in zip(images, arrays, strict=True):
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    images /= 127.5  # in place: a large set is held once in float32
    images -= 1
    return torch.from_numpy(images)


def resampled(arrays: NDArray[numpy.uint8], size: int | None) -> Tensor:
    """Raw pixels, (N, H, W) or (N, H, W, 3), as (N, C, size, size) in [-1, 1]; for `size` see `decoded`."""
    if size is not None and arrays.shape[1:3] != (size, size):
        queue = tqdm(arrays, desc="resampling", unit="image") if len(arrays) >= 50 * _MANY else arrays
        arrays = numpy.stack([decoded(Image.fromarray(array), size) for array in queue])
    return scaled(arrays, 1 if arrays.ndim == 3 else 3)


class _Parts(Dataset):
    """What `_read` returns or raises for each file, (`_PART` files a part), for worker processes to take."""

    def __init__(self, paths: Sequence[Path], *how: Any) -> None:
        self.paths, self.how = paths, how

    def __len__(self) -> int:
        return -(-len(self.paths) // _PART)

    def __getitem__(self, part: int) -> list:
        return [self.read(path) for path in self.paths[part * _PART : (part + 1) * _PART]]

    def read(self, path: Path) -> tuple[NDArray[numpy.uint8], bool, bool] | Refused:
        try:
            return _read(path, *self.how)
        except Refused as refused:
            return refused


def _each(
    paths: Sequence[Path], size: int | None, crop_fraction: float | None, bits: int | None
) -> Iterator[tuple[NDArray[numpy.uint8], bool, bool] | Refused]:
    """What `_read` returns or raises for each file, in their order; many are read by one process a thread of torch."""
    files = _Parts(paths, size, crop_fraction, bits)
    parts: Iterable[list] = map(files.__getitem__, range(len(files)))
    workers = min(_WORKERS, torch.get_num_threads())
    # Threads would wait for each other: half of the time is spent inside the interpreter.
    if len(paths) >= _WHOLE_PROCESS and workers > 1 and sys.platform == "linux":
        parts = DataLoader(files, None, num_workers=workers, collate_fn=list, multiprocessing_context="fork")
    return itertools.chain.from_iterable(parts)


def _read(
    path: Path, size: int | None, crop_fraction: float | None, bits: int | None
) -> tuple[NDArray[numpy.uint8], bool, bool]:
    """The image as `decoded`, whether its file has several frames, and whether it has 16 bits."""
    try:
        # Not by its name: Pillow would map some TIFFs into memory, and leave their pixels unturned.
        with open(path, "rb") as handle, Image.open(handle) as file:
            # A phone's JPEG may carry previews as further frames.
            several = getattr(file, "n_frames", 1) > 1 and file.format != "MPO"
            deep = file.mode.startswith("I") or ";16" in str(file.tile)
            image = ImageOps.exif_transpose(file)  # apply the EXIF orientation
            image.load()
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
