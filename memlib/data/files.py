"""From image files and raw pixels to `Images`: which are read, and what becomes of one that cannot be."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from memlib.data.images import Images, collect, subset
from memlib.errors import Refused

KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
"""Endings of the files that are taken for images, in lower case."""

_GREY = {"1", "L", "LA"}  # Pillow's modes without colour
_MANY = 200  # files from which a progress bar is worth its line


def located(place: str, kind: str) -> Path:
    """The folder `place`, ~ understood. Raises Refused where there is none."""
    root = Path(place).expanduser()
    if not place or not root.is_dir():
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
    share: float | None = None,
    colour: bool = False,
) -> Images:
    """The files, paths below `root`, in the order given, (N, C, size, size); only `limit`, drawn by `seed`, are opened.

    Turned as the camera was held, cut and resampled as `decoded` says; without `size` all must have one size. Grey
    (C = 1) if every file is grey and not `colour`, else RGB. Raises Refused for sizes that differ and for a file that
    cannot be read; `skip_broken` leaves such files out, counts them in `skipped` and warns.
    """
    chosen = subset(len(files), limit, seed).tolist()
    kept, arrays, broken = [], [], []
    # TQDM_DISABLE acts on a bar only if nobody passes `disable`.
    for position in tqdm(chosen, desc="reading images", unit="image") if len(chosen) >= _MANY else chosen:
        try:
            array = _read(root / files[position], size, share)
        except Refused:
            if not skip_broken:
                raise
            broken.append(files[position])
            continue
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            (high, wide), (other_high, other_wide) = arrays[0].shape[:2], array.shape[:2]
            raise Refused(
                f"images differ in size: {files[kept[0]]!r} is {wide}x{high} and {files[position]!r} is "
                f"{other_wide}x{other_high}; give a size to resample them to"
            )
        kept.append(position)
        arrays.append(array)
    if not kept:
        raise Refused(
            f"none of {len(chosen)} images in {str(root)!r} can be read, starting with {broken[0]!r}: give a "
            "folder of intact ones"
        )
    if broken:
        left_out = f"left out {len(broken)} of {len(chosen)} images that cannot be read, the first is {broken[0]!r}"
        warnings.warn(f"{source}: {left_out}", stacklevel=4)  # at the caller of data.load
    images = scaled(arrays, 3 if colour or any(array.ndim == 3 for array in arrays) else 1)
    return collect(images, torch.tensor([labels[position] for position in kept]), names, source, len(broken))


def decoded(image: Image.Image, size: int | None, share: float | None = None) -> NDArray[numpy.uint8]:
    """One picture as 256 levels, (H, W) if it is stored without colour, else (H, W, 3).

    With `size` its central square, of `share` (1) of the shorter side, is resampled with Pillow's Lanczos filter, which
    averages over the source pixels (antialiased); `share` alone cuts and keeps the pixels. Transparency is laid over
    white, 16 bits are scaled to 8.
    """
    if image.mode.startswith("I"):  # convert() would clip 16 bits, not scale them
        image = Image.fromarray((numpy.asarray(image).clip(0, 65535) // 257).astype(numpy.uint8))
    plain = "L" if image.mode in _GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(plain)
    side = min(image.size) * (share or 1)
    if size is not None:
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    elif share is not None:
        whole = max(1, round(side))
        left, top = (image.width - whole) // 2, (image.height - whole) // 2
        image = image.crop((left, top, left + whole, top + whole))
    return numpy.asarray(image)


def scaled(arrays: Sequence[NDArray[numpy.uint8]], channels: int) -> Tensor:
    """Arrays of one size, (H, W) or (H, W, 3) in 0..255, as (N, channels, H, W) in [-1, 1]; grey is repeated."""
    images = numpy.empty((len(arrays), channels, *arrays[0].shape[:2]), numpy.float32)
    for image, array in zip(images, arrays, strict=True):
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    images /= 127.5  # in place: a large set is held once in float32
    images -= 1
    return torch.from_numpy(images)


def resampled(arrays: NDArray[numpy.uint8], size: int | None) -> Tensor:
    """Raw pixels, (N, H, W) or (N, H, W, 3), as (N, C, size, size) in [-1, 1], cut and resampled as `decoded` says."""
    if size is not None and arrays.shape[1:3] != (size, size):
        queue = tqdm(arrays, desc="resampling", unit="image") if len(arrays) >= 50 * _MANY else arrays
        arrays = numpy.stack([decoded(Image.fromarray(array), size) for array in queue])
    return scaled(arrays, 1 if arrays.ndim == 3 else 3)


def _read(path: Path, size: int | None, share: float | None) -> NDArray[numpy.uint8]:
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # as the camera was held
            image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        why = "it is none, or of an unknown kind" if isinstance(error, UnidentifiedImageError) else str(error)
        raise Refused(
            f"{str(path)!r} cannot be read as an image: {why}; repair it, take it out, or give "
            "skip_broken=yes to leave such files out"
        ) from error
    return decoded(image, size, share)
