"""CelebA (Liu et al. 2015, Deep Learning Face Attributes in the Wild) in its official layout, at any size."""

import os
import re
from dataclasses import replace
from pathlib import Path

from memlib.data.files import KINDS, gather, located
from memlib.data.folder import classes
from memlib.data.images import Images
from memlib.errors import Refused

_IDENTITY, _ATTRIBUTES, _PARTS = "identity_CelebA.txt", "list_attr_celeba.txt", "list_eval_partition.txt"
_SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in list_eval_partition.txt
_HQ = "CelebA_HQ_facial_identity_dataset"
_WIDE, _HIGH = 178, 218  # pixels of an aligned image


def load(
    place: str,
    size: int | None,
    *,
    label: str = "identity",
    split: str | None = None,
    subset: str | None = None,
    crop: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    stored: bool = False,
) -> Images:
    """Aligned faces, (N, 3, size, size), in the order of their numbers, labelled by person or by one attribute.

    `place` holds `img_align_celeba/`, the list of the label and, for a split, the list of the parts. They may also lie
    in the folders Img, Anno and Eval of the download.

    "CelebA-25000" of SIDE (Chen et al. 2024) is limit=25000. The paper does not say which images, so seed 0 is our
    choice.

    Arguments:
        place: the folder.
        size: take the central square and resample it to this size; None keeps the stored images.
        label: "identity" or one of the attributes. An attribute gives the labels 0 and 1. Persons are numbered in the
            order of their identity over the whole list, whichever images are drawn.
        split: "train", "valid" or "test"; None reads all.
        subset: "hq-identity" reads the 5,478 CelebA-HQ images of 307 persons (Na et al. 2022) from their class folders
            {train,test}/PERSON, both if no split is given.
        crop: the width in pixels of the square that is cut out of an aligned image, which is 178 pixels wide. None is
            the full width; 140 is used by Song and Ermon (2019) and DDIM. The crop scales with the stored image, so a
            set stored at half the size gives the same faces.
        limit, seed, skip_broken, stored: see `memlib.data.files.gather`.

    Raises:
        Refused: for missing files, for lists that contradict themselves or the images, for an unknown label, split or
            subset, and as `memlib.data.files.gather` does.
    """
    root = located(place, "celeba")
    options = {"limit": limit, "seed": seed, "skip_broken": skip_broken, "stored": stored, "colour": True}
    if subset is not None:
        if subset != "hq-identity":
            raise Refused(f"CelebA has no subset {subset!r}: give hq-identity, or limit=25000 for a random one")
        if label != "identity" or crop is not None:
            raise Refused("subset=hq-identity has squares labelled by person: leave out label and crop")
        return gather(f"celeba:{place}", *_hq(root, split), size, **options)
    if crop is not None and not 1 <= crop <= _WIDE:
        raise Refused(f"crop={crop} is outside 1..{_WIDE}, the width of an aligned image: give for instance 140")
    if label == "identity":
        listed, rows = _rows(root, _IDENTITY, 1)
        names = tuple(sorted({row[0] for row in rows.values()}, key=int))
    else:
        listed, rows = _attribute(root, label)
        names = (f"no {label}", label)
    images, lost = _images(root, listed, rows, skip_broken)
    if split is not None:
        if split not in _SPLITS:
            raise Refused(f"CelebA has no split {split!r}: give {' or '.join(_SPLITS)}")
        partition, parts = _rows(root, _PARTS, 1)
        if missing := [name for name in rows if name not in parts]:
            raise Refused(f"{str(partition)!r} does not list {missing[0]!r}: download it again")
        rows = {name: row for name, row in rows.items() if parts[name] == [str(_SPLITS.index(split))]}
        lost = [name for name in lost if name in rows]
    files = sorted(rows.keys() - set(lost))
    if not files:
        raise Refused(f"{str(images)!r} holds no image of split={split}: give another, or leave it out")
    numbers = {name: index for index, name in enumerate(names)}
    labels = [numbers[rows[name][0]] for name in files]
    fraction = crop / _WIDE if crop else None
    found = gather(f"celeba:{place}", images, files, labels, names, size, crop_fraction=fraction, **options)
    return replace(found, skipped=found.skipped + len(lost))


def _rows(root: Path, name: str, width: int, skip: int = 0) -> tuple[Path, dict[str, list[str]]]:
    """The path of a list, and its lines by image, each with `width` integers."""
    path = _file(root, name)
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines()[skip:], skip + 1):
        image, *row = line.split() or [""]
        if len(row) != width or not all(re.fullmatch(r"[-+]?\d+", item, re.ASCII) for item in row):
            wanted = "a number" if width == 1 else f"{width} numbers"
            shown = line if len(line) <= 60 else line[:57] + "..."
            raise Refused(f"line {number} of {str(path)!r} is {shown!r}, not an image and {wanted}: download it again")
        if image in rows:
            raise Refused(f"{str(path)!r} lists {image!r} twice, again in line {number}: download it again")
        rows[image] = row
    return path, rows


def _attribute(root: Path, label: str) -> tuple[Path, dict[str, list[str]]]:
    """The path of the attribute list and, for each image, the name of its label."""
    path = _file(root, _ATTRIBUTES)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        count, attributes = file.readline().strip(), file.readline().split()
    if not count.isdecimal():
        raise Refused(f"{str(path)!r} begins with {count[:40]!r}, not with the number of its images: download it again")
    if not attributes or Path(attributes[0]).suffix.lower() in KINDS:
        raise Refused(f"the second line of {str(path)!r} names no attributes: download it again")
    if label not in attributes:
        raise Refused(f"{str(path)!r} has no attribute {label!r}: give identity or one of {', '.join(attributes)}")
    _, rows = _rows(root, _ATTRIBUTES, len(attributes), 2)
    if len(rows) != int(count):
        raise Refused(f"{str(path)!r} announces {count} images and lists {len(rows)}: download it again")
    column = attributes.index(label)
    if wrong := [name for name, row in rows.items() if row[column] not in ("1", "-1")]:
        raise Refused(
            f"{label} of {wrong[0]!r} in {str(path)!r} is {rows[wrong[0]][column]}, not 1 or -1: download it again"
        )
    return path, {name: [label if row[column] == "1" else f"no {label}"] for name, row in rows.items()}


def _images(root: Path, listed: Path, rows: dict[str, list[str]], skip_broken: bool) -> tuple[Path, list[str]]:
    """The folder of the images, and the listed images that are missing from it."""
    where = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
    folder = next((root / name for name in where if (root / name).is_dir()), None)
    if folder is None:
        raise Refused(f"{str(root)!r} has no folder 'img_align_celeba': give celeba:PATH with the folder that has it")
    there = {name for name in os.listdir(folder) if Path(name).suffix.lower() in KINDS and not name.startswith(".")}
    if not there:
        raise Refused(f"{str(folder)!r} holds no image: unpack img_align_celeba.zip there")
    if unlisted := sorted(there - rows.keys()):
        raise Refused(
            f"{str(listed)!r} does not list {unlisted[0]!r} of {str(folder)!r}: download it again, or remove the image"
        )
    lost = sorted(rows.keys() - there)
    if lost and not skip_broken:
        raise Refused(
            f"{str(folder)!r} lacks {lost[0]!r} and {len(lost) - 1} more of the images that {str(listed)!r} lists: "
            "add them, or give skip_broken=yes to leave them out"
        )
    return folder, lost


def _file(root: Path, name: str) -> Path:
    for folder in ("", "Anno", "Eval"):
        if (path := root / folder / name).is_file():
            return path
    raise Refused(
        f"{str(root)!r} has no {name}, also not in the folders Anno/ and Eval/ of the download: put it next to "
        "the images"
    )


def _hq(root: Path, split: str | None) -> tuple[Path, list[str], list[int], tuple[str, ...]]:
    """The folder, files, labels and persons of the identity subset. A single part also names the persons of both."""
    root = root / _HQ if (root / _HQ).is_dir() else root
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise Refused(
            f"{str(root)!r} has no {_HQ} with class folders train/PERSON and test/PERSON: get it from the "
            "authors of subset=hq-identity (Na et al. 2022)"
        )
    if split not in (None, "train", "test"):
        raise Refused(f"subset=hq-identity has no split {split!r}: give train or test, or leave it out for both")
    files, labels, names = classes(root, lambda folders: folders[1] if len(folders) > 1 else "")
    if "" in names:
        loose = files[labels.index(names.index(""))]
        raise Refused(f"{str(root / loose)!r} is not in the folder of a person: move it into one, or remove it")
    kept = [index for index, file in enumerate(files) if split in (None, file.split(os.sep)[0])]
    return root, [files[index] for index in kept], [labels[index] for index in kept], names
