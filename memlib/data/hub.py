"""Image data sets of the Hugging Face Hub, through its library `datasets`."""

import importlib
from types import ModuleType
from typing import Any

import torch
from PIL import ImageOps
from torch import Tensor
from tqdm import tqdm

from memlib.data.files import decoded, scaled
from memlib.data.images import Images, collect, in_order, subset
from memlib.errors import Refused


def load(
    place: str,
    size: int | None,
    *,
    split: str | None = None,
    label: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Images:
    """The images of a data set of the Hub, (N, C, H, W), as in `hub:ylecun/mnist,split=test`.

    The first column of images is read.

    Arguments:
        place: the name of the data set, or a local folder that `datasets` can read.
        size: crop and resample as for a folder of images; None keeps the stored size.
        split: a split, or a part of one such as train[:500]. None is `train`, or the only split.
        label: the column of labels. None is the first column of classes, or one called label or labels (its sorted
            values are then the classes), or else a single class ''.
        limit, seed: how many images to draw from the split, and the seed of the draw.

    Raises:
        Refused: without the library, for a data set, split or column that is not available, and for images that cannot
            be read, have no label or differ in size.
    """
    if not place:
        raise Refused("hub: names no data set: write hub:NAME, as in hub:ylecun/mnist,split=test")
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    library = _library()
    try:
        rows = library.load_dataset(place, split=split)
    except Exception as error:  # the library raises what the network, the Hub and its readers raise
        raise Refused(f"'hub:{place}' cannot be loaded: {_line(error)}; check the name and the network") from error
    if split is None:
        if "train" not in rows and len(rows) > 1:
            raise Refused(f"{place!r} has no split train: give one of split={', split='.join(rows)}")
        rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    image, by = _columns(library, rows.features, place, label)
    if not len(rows):
        raise Refused(f"'hub:{place}' holds no image: give another split")
    rows = rows.select_columns([image, by] if by else [image])  # a row is decoded as a whole
    arrays, values = [], []
    for position in tqdm(subset(len(rows), limit, seed).tolist(), desc="reading images", unit="image"):
        try:
            row = rows[position]
            arrays.append(decoded(ImageOps.exif_transpose(row[image]), size))
        except Exception as error:  # anything that a decoder raises
            raise Refused(f"image {position} of 'hub:{place}' cannot be read: {_line(error)}; repair it") from error
        if arrays[-1].shape[:2] != arrays[0].shape[:2]:
            (high, wide), (other_high, other_wide) = arrays[0].shape[:2], arrays[-1].shape[:2]
            sizes = f"the first is {wide}x{high} and number {position} is {other_wide}x{other_high}"
            raise Refused(f"images of 'hub:{place}' differ in size: {sizes}; give a size to resample them to")
        values.append(row[by] if by else "")
        if values[-1] is None or values[-1] == -1:  # how the library marks a hidden label
            raise Refused(f"image {position} of 'hub:{place}' has no label: give a split that is labelled")
    labels, names = _classes(values, getattr(rows.features.get(by), "names", None))
    channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    return collect(scaled(arrays, channels), labels, names, f"hub:{place}" + (f",split={split}" if split else ""))


def _columns(library: ModuleType, features: dict[str, Any], place: str, label: str | None) -> tuple[str, str | None]:
    """The names of the column of images and of the column of labels; the latter is None if there are no labels."""
    images = [name for name, kind in features.items() if isinstance(kind, library.Image)]
    if not images:
        raise Refused(f"'hub:{place}' has no column of images among {', '.join(features)}: give another set")
    if label is not None and (label not in features or label in images):
        others = ", ".join(name for name in features if name not in images) or "none"
        raise Refused(f"'hub:{place}' has no column of labels {label!r}: it has {others}")
    classes = [name for name, kind in features.items() if isinstance(kind, library.ClassLabel)]
    usual = [name for name in ("label", "labels") if name in features]
    return images[0], label or next(iter(classes + usual), None)


def _classes(values: list, names: list[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) and the names of their classes. The values themselves are the names if the set names no classes."""
    if names is not None:
        return torch.tensor(values), tuple(names)
    distinct = in_order(values) if all(isinstance(value, str) for value in values) else sorted(set(values))
    number = {value: index for index, value in enumerate(distinct)}
    return torch.tensor([number[value] for value in values]), tuple(map(str, number))


def _library() -> ModuleType:
    """The library `datasets`. It is not a dependency, because only this source needs it and it brings Arrow with it."""
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        library = None
    # A folder called `datasets` next to the notebook can be imported, too.
    if library is None or not hasattr(library, "load_dataset"):
        raise Refused(
            "data sets of the Hub need the library `datasets`, which is not installed: run `pip install datasets`"
        )
    return library


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
