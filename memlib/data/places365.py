"""Places365-Standard (Zhou et al. 2017) as class folders."""

import os

from memlib.data.files import gather, located
from memlib.data.folder import classes, part
from memlib.data.images import Images
from memlib.errors import Refused


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
    """Scenes, (N, 3, size, size), from `place`/{train,val}/CLASS (train unless `split` is val) or from `place`/CLASS.

    `place` is or holds places365_standard. The layout of the large archives, a/abbey/ and
    a/apartment_building/outdoor/, is read with the same class names, "abbey" and "apartment_building-outdoor". With a
    `limit`, only that many files are opened. For `size`, `seed`, `skip_broken` and `stored` see
    `memlib.data.files.gather`.

    Raises:
        Refused: for images without class folders, and as `memlib.data.files.gather` does.
    """
    root = located(place, "places365")
    root = root / "places365_standard" if (root / "places365_standard").is_dir() else root
    folder = part(root, split, ("train", "val"), "Places365")
    by_letter = all(len(entry.name) == 1 for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    if by_letter:
        files, labels, names = classes(folder, lambda folders: "-".join(folders[1:]))
    else:
        files, labels, names = classes(folder)
    if "" in names:
        raise Refused(
            f"{str(folder)!r} holds images without class folders such as 'abbey': sort them into such "
            "folders, or give folder:PATH"
        )
    options = {"limit": limit, "seed": seed, "skip_broken": skip_broken, "stored": stored, "colour": True}
    return gather(f"places365:{place}", folder, files, labels, names, size, **options)
