"""The result of every source: images in [-1, 1] with labels, the names of the labels, and a fingerprint."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from memlib.cache.atomic import replace_file
from memlib.errors import Refused
from memlib.stored import Rows, Stored, choose, span

_FEW = 10  # so many images may all be bright; of more, some pixel is dark


@dataclass(frozen=True)
class Images:
    """Images (N, C, H, W), float32 in [-1, 1], with labels (N,), int64, that index `names`.

    Of a set that `load` left on disk, `images` is a `memlib.stored.Stored`, which is indexed like the tensor. Create
    others with `collect`; index them with a slice, a tensor, an array or a list, as (N,) of positions or a mask.

    Attributes:
        images, labels, names: see above.
        fingerprint: the SHA-256 of the shapes and bytes of images and labels, in hex.
        source: where the images come from, in the form that `load` understands.
        skipped: how many further images could not be read and were left out on request.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    fingerprint: str
    source: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor | NDArray | Sequence[int]) -> "Images":
        # A single position gives a set of one; a slice copies nothing.
        rows = index if isinstance(index, slice) else torch.arange(len(self))[index].reshape(-1)
        return _named(cast(Tensor, choose(self.images, rows)), self.labels[rows], self.names, self.source, self.skipped)


def collect(
    images: Tensor | NDArray, labels: Tensor | NDArray | Sequence[int], names: Sequence[str], source: str,
    skipped: int = 0,
) -> Images:  # fmt: skip
    """`Images` from images (N, C, H, W) in [-1, 1] and labels (N,), with their fingerprint.

    Warns of a set in which no pixel is below 0: images in [0, 1] would pass for images of half the contrast.

    Arguments:
        images: (N, C, H, W), of a floating type.
        labels: (N,), in 0 .. len(names) - 1.
        names: the name of each label.
        source: where the images come from, in the form that `load` understands, or in words.
        skipped: how many further images were left out.

    Raises:
        Refused: for a wrong shape, type, range or label.
    """
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if images.dim() != 4 or labels.shape != (len(images),):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise Refused(f"{source}: images are (N, C, H, W) with labels (N,), not {shapes}")
    if not images.is_floating_point():
        raise Refused(f"{source}: images are {images.dtype}: give x / 127.5 - 1 if x are levels from 0 to 255")
    if labels.is_floating_point() and labels.frac().any():
        raise Refused(f"{source}: labels are whole numbers: give the position of each name in {tuple(names)}")
    images, labels = images.to(torch.float32).contiguous(), labels.to(torch.int64).contiguous()
    if images.numel():
        low, high = images.aminmax()  # NaN where there is one, and no copy of a large set
        if not (low >= -1 and high <= 1):
            instead = ": give x / 127.5 - 1" if low >= 0 and 1 < high <= 255 else ""
            raise Refused(f"{source}: images must lie in [-1, 1], not in [{low:g}, {high:g}]{instead}")
        if not 0 <= labels.min() <= labels.max() < len(names):
            span = f"from {int(labels.min())} to {int(labels.max())}"
            raise Refused(f"{source}: labels must lie in 0..{len(names) - 1}, not {span}")
        _warn_of_units(source, len(images), float(low), float(high))
    return _named(images, labels, tuple(names), source, skipped)


def collect_stored(
    images: Stored, labels: Tensor, names: Sequence[str], source: str, skipped: int, note: Path
) -> Images:  # fmt: skip
    """`Images` of a set on disk (N, C, H, W) with labels (N,), as `collect` makes them of the same images in memory.

    Arguments:
        images, labels, names, source, skipped: see `collect`.
        note: a file that names these images; what has to be looked up in all of them is kept beside it.
    """
    digest = hashlib.sha256(f"{tuple(images.shape)} {labels.tolist()}".encode())
    beside = note.with_name(f"{note.stem}-{digest.hexdigest()[:32]}.json")
    try:
        told = json.loads(beside.read_text(encoding="utf8"))
        fingerprint, low, high = str(told["fingerprint"]), float(told["low"]), float(told["high"])
    except (OSError, ValueError, KeyError, TypeError):  # not looked up yet, or damaged
        fingerprint, (low, high) = _fingerprint(images, labels), span(images)
        text = json.dumps({"fingerprint": fingerprint, "low": low, "high": high})
        replace_file(beside, lambda path: path.write_text(text, encoding="utf8"))
    _warn_of_units(source, len(images), low, high)
    return Images(cast(Tensor, images), labels, tuple(names), fingerprint, source, skipped)


def _warn_of_units(source: str, count: int, low: float, high: float) -> None:
    if 0 <= low < high and count >= _FEW:
        warnings.warn(
            f"{source}: no pixel of {count} images is below 0, so they may lie in [0, 1]: give 2 x - 1 if so",
            stacklevel=3,
        )


def _named(images: Tensor, labels: Tensor, names: tuple[str, ...], source: str, skipped: int) -> Images:
    """`Images` of tensors that are known to be right."""
    return Images(images, labels, names, _fingerprint(images, labels), source, skipped)


def _fingerprint(images: Rows, labels: Tensor) -> str:
    digest = hashlib.sha256()
    for rows in (images, labels):
        digest.update(str(tuple(rows.shape)).encode())
        for part in rows.bytes() if isinstance(rows, Stored) else [rows.cpu().numpy().reshape(-1).data]:
            digest.update(part)
    return digest.hexdigest()


def subset(total: int, limit: int | None, seed: int = 0) -> Tensor:
    """The ascending positions, (N,), of N = `limit` out of `total` images, drawn by `seed`; all if limit is None.

    The images of a smaller limit are among those of a larger one. Raises Refused for a limit outside 1..total.
    """
    if limit is None:
        return torch.arange(total)
    if not 1 <= limit <= total:
        raise Refused(f"limit={limit} cannot be drawn from {total} images: give 1 to {total}, or leave limit out")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in the order of the alphabet, or by value if all are numbers: 2 before 10."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def label_numbers(images: Images, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """The labels of some classes, each given by its number or by its name, in their order.

    Raises Refused for a name that no class has.
    """
    names = images.names
    if strange := [one for one in wanted if isinstance(one, str) and one not in names]:
        raise Refused(f"{images.source} has no class {strange[0]!r}: {listed_classes(images)}")
    return tuple(names.index(one) if isinstance(one, str) else int(one) for one in wanted)


def listed_classes(images: Images) -> str:
    """The classes of a set in words, for the end of a sentence."""
    names = images.names
    if len(names) == 1:
        return "its images are of one class, so sort them into a subfolder a class, or give another source"
    few = [f"{number} ({name})" if str(number) != name else name for number, name in enumerate(names)]
    return f"its classes are {', '.join(few)}" if len(few) <= 12 else f"its classes are 0 to {len(few) - 1}"


def plant_duplicates(images: Images, count: int, copies: int, seed: int = 0) -> tuple[Images, Tensor]:
    """Add `copies` further copies of `count` images, drawn by `seed`: a search for duplicates then has a known answer.

    Returns:
        The T = N + count * copies images, copies last, and the index of the original of each, (T,).

    Raises:
        Refused: for a count outside 0..N, and for a negative number of copies.
    """
    if not 0 <= count <= len(images) or copies < 0:
        raise Refused(f"{copies} copies of {count} cannot be planted among {len(images)} images: give fewer")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    origin = torch.cat((torch.arange(len(images)), chosen.repeat(copies)))
    return images[origin], origin
