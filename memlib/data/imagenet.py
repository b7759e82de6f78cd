"""ImageNet (Deng et al. 2009) in class folders named by WordNet ids, at any size."""

import re
from pathlib import Path

import torch

from memlib.data.files import gather, located
from memlib.data.folder import classes as class_folders
from memlib.data.folder import part
from memlib.data.images import Images
from memlib.errors import Refused

_WORDS = ("synset_words.txt", "LOC_synset_mapping.txt")


def load(
    place: str,
    size: int | None,
    *,
    split: str | None = None,
    classes: int | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    stored: bool = False,
) -> Images:
    """Photographs, (N, 3, size, size), from `place`/WNID or from `place`/{train,val}/WNID.

    A class is named by its id, followed by its words if synset_words.txt or LOC_synset_mapping.txt is in `place`. All
    choices are made before any file is opened.

    Arguments:
        place: the folder.
        size: pixels a side, see `memlib.data.files.gather`.
        split: "train" or "val"; None is train.
        classes: how many classes to take, in the order of their ids.
        per_class: how many images of each class to draw by `seed`. The images of a smaller number are among those of a
            larger one, and `classes` does not change them.
        limit, seed, skip_broken, stored: see `memlib.data.files.gather`; `limit` draws from the images chosen above.

    Raises:
        Refused: for numbers that are not available, folders with other names (the validation images come without
            folders: sort them first), a damaged list of words, and as `memlib.data.files.gather` does.
    """
    root = located(place, "imagenet")
    folder = part(root, split, ("train", "val"), "ImageNet")
    files, labels, ids = class_folders(folder)
    if strange := [name for name in ids if not re.fullmatch(r"n\d{8}", name)]:
        held = f"has the folder {strange[0]!r}" if strange[0] else "holds images without class folders"
        raise Refused(
            f"{str(folder)!r} {held}, not WordNet ids such as 'n01440764': sort the images into such "
            "folders, or give folder:PATH"
        )
    chosen = _chosen(labels, ids, classes, per_class, seed)
    words, ids = _words(root), ids[:classes]
    names = tuple(f"{name} {words[name]}" if name in words else name for name in ids)
    options = {"limit": limit, "seed": seed, "skip_broken": skip_broken, "stored": stored, "colour": True}
    files, labels = [files[position] for position in chosen], [labels[position] for position in chosen]
    return gather(f"imagenet:{place}", folder, files, labels, names, size, **options)


def _chosen(
    labels: list[int], ids: tuple[str, ...], classes: int | None, per_class: int | None, seed: int
) -> list[int]:
    """The ordered positions of `per_class` files of each of the first `classes` classes. None means all."""
    if classes is not None and not 1 <= classes <= len(ids):
        raise Refused(
            f"classes={classes} cannot be taken from {len(ids)} class folders: give 1 to {len(ids)}, or leave "
            "classes out"
        )
    members: list[list[int]] = [[] for _ in ids]
    for position, label in enumerate(labels):
        members[label].append(position)
    members = members[:classes]
    if per_class is not None:
        fewest = min(len(rows) for rows in members)
        if not 1 <= per_class <= fewest:
            least = ids[[len(rows) for rows in members].index(fewest)]
            raise Refused(
                f"per_class={per_class} cannot be drawn from the {fewest} images of {least!r}: give 1 to "
                f"{fewest}, or leave per_class out"
            )
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(len(rows), generator=generator)[:per_class].tolist() for rows in members]
        members = [sorted(rows[i] for i in order) for rows, order in zip(members, orders, strict=True)]
    return [position for rows in members for position in rows]


def _words(root: Path) -> dict[str, str]:
    path = next((root / name for name in _WORDS if (root / name).is_file()), None)
    if path is None:
        return {}
    words = {}
    for number, line in enumerate(path.read_text(encoding="utf8", errors="replace").splitlines(), 1):
        name, _, text = line.strip().partition(" ")
        if not re.fullmatch(r"n\d{8}", name) or not text:
            raise Refused(
                f"line {number} of {str(path)!r} is {line[:60]!r}, not a WordNet id and its words: download "
                "it again, or remove it"
            )
        words[name] = text
    return words
