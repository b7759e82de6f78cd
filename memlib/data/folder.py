"""Anyone's images from a folder: PNG, JPEG, WebP and BMP, labels by subfolder."""

from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from memlib.data.images import Images, collect
from memlib.errors import Refused

_KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_GREY = {"1", "L", "LA"}    # Pillow's modes without colour
_MANY = 200    # files from which a progress bar is worth its line


def load(place: str, size: int | None) -> Images:
    """The images under the folder `place`, (N, C, size, size), in order of their paths.

    Labels are the subfolders of `place` in sorted order, each with all files below it; a folder without subfolders is
    one class named ''. Files in hidden folders and of other kinds are passed over. With `size` each image is cut to
    its central square and resampled with Pillow's Lanczos filter, which averages over the source pixels (antialiased);
    without it all images must have one size. Grey (C = 1) if every file is grey, else RGB; transparency is laid over
    white; a camera's orientation tag is obeyed. Raises Refused for a folder that is missing or has no images, for a
    file that cannot be read, and for sizes that differ.
    """
    root = Path(place).expanduser()
    if not place or not root.is_dir():
        raise Refused(f"there is no folder {place!r}: give folder:PATH with the path of a folder of images")
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in _KINDS and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        kinds = ", ".join(sorted(_KINDS))
        raise Refused(f"the folder {place!r} holds no image: looked for {kinds}, also in subfolders")
    classes = [path.relative_to(root).parts[0] if path.parent != root else "" for path in files]
    names = tuple(sorted(set(classes)))
    if "" in names and len(names) > 1:
        loose = files[classes.index("")].name
        raise Refused(f"{place!r} has images in subfolders and, such as {loose!r}, beside them: give these a subfolder")
    # TQDM_DISABLE acts on a bar only if nobody passes `disable`.
    queue = tqdm(files, desc="reading images", unit="image") if len(files) >= _MANY else files
    arrays = []
    for path in queue:
        arrays.append(_read(path, size))
        if arrays[-1].shape[:2] != arrays[0].shape[:2]:
            (high, wide), (other_high, other_wide) = arrays[0].shape[:2], arrays[-1].shape[:2]
            raise Refused(
                f"images differ in size: {str(files[0].relative_to(root))!r} is {wide}x{high} and "
                f"{str(path.relative_to(root))!r} is {other_wide}x{other_high}; give a size to resample them to"
            )
    coloured = any(array.ndim == 3 for array in arrays)
    channels = 3 if coloured else 1
    stack = numpy.stack([array if array.ndim == 3 else array[..., None].repeat(channels, 2) for array in arrays])
    images = torch.from_numpy(stack).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    label = {name: index for index, name in enumerate(names)}
    return collect(images, torch.tensor([label[name] for name in classes]), names, f"folder:{place}")


def _read(path: Path, size: int | None) -> numpy.ndarray:
    """One file as uint8, (H, W) if it is stored without colour, else (H, W, 3)."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except Exception as error:    # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise Refused(f"{str(path)!r} cannot be read as an image: {error}; repair it or take it out") from error
    if image.mode.startswith("I"):    # 16 bits; convert() would clip them, not scale them
        image = Image.fromarray((numpy.asarray(image).clip(0, 65535) // 257).astype(numpy.uint8))
    plain = "L" if image.mode in _GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(plain)
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return numpy.asarray(image)
