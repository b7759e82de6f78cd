"""ImageNet (Deng et al. 2009) as class folders named by WordNet ids, at any scale."""

import re
from pathlib import Path

from memlib.data.files import gather, located
from memlib.data.folder import classes, part
from memlib.data.images import Images
from memlib.errors import Refused

_WORDS = ("synset_words.txt", "LOC_synset_mapping.txt")


def load(
    place: str, size: int | None, *, split: str | None = None, limit: int | None = None, seed: int = 0,
    skip_broken: bool = False,
) -> Images:
    """Photographs, (N, 3, size, size), of `place`/WNID or of `place`/{train,val}/WNID, train unless `split` is val.

    A class is called by its id and, if synset_words.txt or LOC_synset_mapping.txt lies in `place`, its words. With a
    `limit` only so many files are opened. Raises Refused for folders with other names (the validation images come
    without folders: sort them first), a wrong list of words, and as `memlib.data.files.gather` does.
    """
    root = located(place, "imagenet")
    folder = part(root, split, ("train", "val"), "ImageNet")
    files, labels, ids = classes(folder)
    if strange := [name for name in ids if not re.fullmatch(r"n\d{8}", name)]:
        held = f"has the folder {strange[0]!r}" if strange[0] else "holds images without class folders"
        raise Refused(f"{str(folder)!r} {held}, not WordNet ids such as 'n01440764': sort the images into such "
                      "folders, or give folder:PATH")
    words = _words(root)
    names = tuple(f"{name} {words[name]}" if name in words else name for name in ids)
    options = {"limit": limit, "seed": seed, "skip_broken": skip_broken, "colour": True}
    return gather(f"imagenet:{place}", folder, files, labels, names, size, **options)


def _words(root: Path) -> dict[str, str]:
    path = next((root / name for name in _WORDS if (root / name).is_file()), None)
    if path is None:
        return {}
    words = {}
    for number, line in enumerate(path.read_text(encoding="utf8", errors="replace").splitlines(), 1):
        name, _, text = line.strip().partition(" ")
        if not re.fullmatch(r"n\d{8}", name) or not text:
            raise Refused(f"line {number} of {str(path)!r} is {line[:60]!r}, not a WordNet id and its words: download "
                          "it again, or take it out")
        words[name] = text
    return words
