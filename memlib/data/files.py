"""From image files and raw pixels to `Images`: which files are read, and what happens to those that cannot be read."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memlib.data._decoding import Pixels, decoded, decoded_files
from memlib.data._shelf import Found, How, shelved, unlike
from memlib.data.images import Images, collect, collect_stored, subset
from memlib.errors import Refused

KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
"""Files with these endings, in lower case, are read as images."""

_DARK = 16  # files of 16 bits whose 8 upper bits stay below this hold 12 bits or fewer
_MANY = 200  # number of files from which a progress bar is shown


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
    stored: bool = False,
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
        stored: keep the images on disk, as uint8 in the cache, where the next call finds them; `Images.images` is then
            a `memlib.stored.Stored`. A file that changed is read again.

    Raises:
        Refused: for sizes that differ, and for a file that cannot be read unless `skip_broken` is set.
    """
    chosen: list[int] = subset(len(files), limit, seed).tolist()
    if bits is not None and not 1 <= bits <= 16:
        raise Refused(f"bits = {bits} of 16 cannot hold an image: give 1 to 16, or leave bits out")
    paths, how = [root / files[position] for position in chosen], (size, crop_fraction, bits)
    if stored:
        shelf = shelved(root, paths, how, skip_broken, many=_MANY)
        found = shelf.found
    else:
        found, arrays = _in_memory(root, paths, how, skip_broken)
    kept = [position for position, one in zip(chosen, found, strict=True) if one is not None]
    broken = [files[position] for position, one in zip(chosen, found, strict=True) if one is None]
    if not kept:
        raise Refused(
            f"none of {len(chosen)} images in {str(root)!r} can be read, starting with {broken[0]!r}: give a "
            "folder of intact ones"
        )
    told = [(files[position], *one) for position, one in zip(chosen, found, strict=True) if one is not None]
    framed = [name for name, several, _ in told if several]
    deep = [(name, level) for name, _, level in told if level >= 0]
    if broken:
        left_out = f"left out {len(broken)} of {len(chosen)} images, which cannot be read; the first is {broken[0]!r}"
        warnings.warn(f"{source}: {left_out}", stacklevel=4)  # at the caller of data.load
    if framed:
        said = f"{len(framed)} of {len(chosen)} files have several frames, of which the first is read, as {framed[0]!r}"
        warnings.warn(f"{source}: {said}", stacklevel=4)
    if deep and bits is None and (most := max(level for _, level in deep)) < _DARK:
        used = 8 + most.bit_length()
        said = f"{len(deep)} of {len(chosen)} files have 16 bits, as {deep[0][0]!r}, but use at most {used} of them"
        warnings.warn(f"{source}: {said}, so all are dark: give bits={used} if that is their range", stacklevel=4)
    numbers = torch.tensor([labels[position] for position in kept])
    if stored:
        images = shelf.images.coloured(3) if colour else shelf.images
        return collect_stored(images, numbers, names, source, len(broken), shelf.note)
    channels = 3 if colour or any(array.ndim == 3 for array in arrays) else 1
    return collect(scaled(arrays, channels), numbers, names, source, len(broken))


def _in_memory(root: Path, paths: Sequence[Path], how: How, skip_broken: bool) -> tuple[list[Found], list[Pixels]]:
    """What each file is, None for a broken one, and the arrays of the others."""
    found: list[Found] = []
    arrays: list[Pixels] = []
    first = paths[0]
    # TQDM_DISABLE acts on a bar only if nobody passes `disable`.
    bar = tqdm(paths, desc="reading images", unit="image") if len(paths) >= _MANY else paths
    for path, one in zip(bar, decoded_files(paths, *how), strict=True):
        if isinstance(one, Refused):
            if not skip_broken:
                raise one
            found.append(None)
            continue
        array, several, wide = one
        if not arrays:
            first = path
        elif array.shape[:2] != arrays[0].shape[:2]:
            raise unlike(root, first, arrays[0].shape[:2], path, array.shape[:2])
        found.append((several, int(array.max()) if wide else -1))
        arrays.append(array)
    return found, arrays


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
