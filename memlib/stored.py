"""Sets of images that stay on disk: rows become float32 where they are looked at, a batch at a time.

A `Stored` has the shape, the dtype and the indices of the tensor that it stands for, and gives the same bits. What goes
through a set in parts therefore takes either; the functions here do to both what torch does to a tensor.
"""

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlib.errors import Refused

BYTES = 1 << 22  # of a set that are held at once
_TYPES = {
    "U8": numpy.uint8,
    "I32": numpy.int32,
    "F32": numpy.float32,
}  # little-endian, as the machines that torch knows


class File(NamedTuple):
    """A tensor in a safetensors file: its path, its first byte there, its shape and its dtype."""

    path: str
    first: int
    shape: tuple[int, ...]
    dtype: type


class Stored:
    """Rows (N, *S) of files and arrays, as float32: levels from 0 to 255, uint8, stand for x / 127.5 - 1.

    An index gives tensors: a number one row, (*S), and a slice, a list, an array or a tensor (B, *S). `rows` chooses
    without reading. A torch `DataLoader` takes one as it is.

    Attributes:
        shape: (N, *S).
        dtype: float32, or what a function of `map` returns.
        device: the CPU.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        parts: Sequence[File | NDArray],
        at: NDArray | None = None,
        then: tuple[Callable[[Tensor], Tensor], ...] = (),
        row: tuple[int, ...] | None = None,
    ) -> None:
        """Take the rows of all parts, (B, *S), or those `at` these places. A side of 1 is repeated up to that of `row`,
        which is the longest by default: images without colour beside coloured ones."""
        self._parts, self._at, self._then = list(parts), at, then
        self._first = numpy.cumsum([0, *(part.shape[0] for part in parts)])
        self._row = row or tuple(max(sides) for sides in zip(*(part.shape[1:] for part in parts), strict=True))
        empty = self._mapped(torch.empty(0, *self._row))
        count = int(self._first[-1]) if at is None else len(at)
        self.shape, self.dtype = torch.Size((count, *empty.shape[1:])), empty.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, slice):
            first, stop, step = index.indices(len(self))
            return self._read(numpy.arange(first, stop, step))
        places = numpy.arange(len(self))[numpy.asarray(index)]
        found = self._read(places.ravel())
        return found.view(*places.shape, *found.shape[1:])

    def __getitems__(self, places: Sequence[int]) -> list[Tensor]:
        return list(self[places])  # by which a DataLoader asks for a whole batch

    def __iter__(self) -> Iterator[Tensor]:
        return (row for part in parts(self) for row in part)

    def rows(self, index: Any) -> "Stored":
        """The rows of a slice, a tensor (M,) of places or a mask (N,), still on disk."""
        places = numpy.arange(len(self)) if self._at is None else self._at
        chosen = index if isinstance(index, slice) else numpy.asarray(index)
        return Stored(self._parts, places[chosen], self._then, self._row)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Stored":
        """The same rows after a function from (B, *S) to (B, *T), of each row for itself, still on disk."""
        return Stored(self._parts, self._at, (*self._then, function), self._row)

    def coloured(self, channels: int) -> "Stored":
        """Images (N, 1, H, W) repeated to (N, channels, H, W); others unchanged. Before any `map`."""
        return Stored(self._parts, self._at, self._then, (channels, *self._row[1:]))

    def split(self, count: int) -> Iterator[Tensor]:
        """The rows as tensors (B, *S), in order, `count` at a time."""
        return (self[first : first + count] for first in range(0, len(self), count))

    def flatten(self, first: int = 0) -> "Stored":
        """The rows as vectors, (N, D): the first dimension stays, so `first` is 1."""
        return self.map(_flat)

    def to(self, dtype: torch.dtype) -> "Stored":
        """The rows (N, *S) in another floating dtype."""
        return self if dtype == self.dtype else self.map(functools.partial(_cast, dtype=dtype))

    def double(self) -> "Stored":
        """The rows (N, *S) in float64."""
        return self.to(torch.float64)

    def dim(self) -> int:
        """The number of dimensions, a scalar."""
        return len(self.shape)

    def numel(self) -> int:
        """How many numbers the rows have, a scalar."""
        return self.shape.numel()

    @property
    def nbytes(self) -> int:
        """How many bytes the rows would take in memory, a scalar."""
        return self.numel() * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """True: whatever the files hold, rows are floats."""
        return True

    def _mapped(self, rows: Tensor) -> Tensor:
        for function in self._then:
            rows = function(rows)
        return rows

    def _read(self, places: NDArray) -> Tensor:
        """The rows at these places, (B, *S)."""
        places = places if self._at is None else self._at[places]
        found = numpy.empty((len(places), *self._row), numpy.float32)
        home = numpy.searchsorted(self._first, places, "right") - 1
        follows = (numpy.diff(places) == 1) & (numpy.diff(home) == 0)
        starts = numpy.flatnonzero(numpy.concatenate(([True], ~follows))) if len(places) else []
        for start, stop in itertools.pairwise([*starts, len(places)]):  # rows that lie side by side
            part, into = home[start], found[start:stop]
            values = _rows_of(self._parts[part], int(places[start] - self._first[part]), int(stop - start))
            if values.dtype == numpy.uint8:
                numpy.divide(values, numpy.float32(127.5), out=into, dtype=numpy.float32)
                into -= 1
            else:
                into[:] = values
        return self._mapped(torch.from_numpy(found))

    def bytes(self) -> Iterator[memoryview]:
        """The bytes of the tensor that this stands for, in parts of any shape."""
        return (part.contiguous().numpy().reshape(-1).view(numpy.uint8).data for part in parts(self))


Rows: TypeAlias = Tensor | Stored
"""A set in memory or on disk."""


def files(paths: Sequence[str | Path], name: str = "images") -> Stored:
    """The rows (B, *S) that safetensors files hold under a name, uint8 or float32, as one set (N, *S).

    Raises:
        OSError: for a file that is not there, and ValueError or KeyError for a damaged one.
    """
    return Stored([_described(Path(path), name) for path in paths])


def array(path: str | Path, name: str) -> NDArray:
    """A tensor of any shape in a safetensors file. Raises as `files` does."""
    file = _described(Path(path), name)
    return _rows_of(file, 0, file.shape[0])


@overload
def choose(images: Tensor, index: Any) -> Tensor: ...
@overload
def choose(images: Rows, index: Any) -> Rows: ...
def choose(images: Rows, index: Any) -> Rows:
    """The rows of a slice, places (M,) or a mask (N,) of a set (N, *S); those on disk stay there."""
    return images.rows(index) if isinstance(images, Stored) else images[index]


def coloured(images: Rows, channels: int) -> Rows:
    """Images (N, 1, H, W) repeated to (N, channels, H, W)."""
    if isinstance(images, Stored):
        return images.coloured(channels)
    return images.expand(-1, channels, -1, -1).contiguous()


def joined(*sets: Rows) -> Rows:
    """The rows of several sets of one shape, one after the other, (N, *S); on disk if one of them is."""
    if not any(isinstance(one, Stored) for one in sets):
        return torch.cat([one for one in sets if isinstance(one, Tensor)])
    given = [one if isinstance(one, Stored) else Stored([one.detach().cpu().float().numpy()]) for one in sets]
    if any(one._then for one in given):
        raise TypeError("join sets before they are mapped")
    at, first, row = [], 0, tuple(max(sides) for sides in zip(*(one._row for one in given), strict=True))
    for one in given:
        at.append((numpy.arange(len(one)) if one._at is None else one._at) + first)
        first += int(one._first[-1])
    return Stored([part for one in given for part in one._parts], numpy.concatenate(at), row=row)


@overload
def mapped(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor: ...
@overload
def mapped(images: Rows, function: Callable[[Tensor], Tensor]) -> Rows: ...
def mapped(images: Rows, function: Callable[[Tensor], Tensor]) -> Rows:
    """A set (N, *S) after a function from (B, *S) to (B, *T), of each row for itself; on disk it is applied late."""
    return images.map(function) if isinstance(images, Stored) else function(images)


def few(images: Rows, most: int) -> int:
    """How many rows of a set (N, *S) to hold at once: `most`, or fewer where they are large; a scalar."""
    return max(1, min(most, BYTES // max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)))


def at_once(most: int, *sets: Rows) -> int:
    """How many rows of sets (N, *S) to hold at once: `most`, or fewer large ones if a set is on disk; a scalar."""
    return few(sets[0], most) if any(isinstance(one, Stored) for one in sets) else most


def parts(images: Rows) -> Iterator[Tensor]:
    """A set (N, *S) as tensors (B, *S) of few numbers, in order and of nearly equal length: a product of a single row
    is rounded otherwise."""
    count = len(images) or 1
    turns = -(-count // few(images, count))
    return iter(images.split(-(-count // turns)))


def each(function: Callable[[Tensor], Tensor], images: Rows) -> Tensor:
    """A function from (B, *S) to (B, *T), of each row for itself: (N, *T) in memory. A set on disk goes in parts."""
    if isinstance(images, Tensor):
        return function(images)
    return filled(len(images), map(function, parts(images))) if len(images) else function(images[:0])


def filled(count: int, pieces: Iterable[Tensor]) -> Tensor:
    """The rows of pieces (B, *T), one after the other, (count, *T). The whole has its place first: small pieces kept
    between large ones that are freed would leave holes in memory, which then grows with the number of pieces."""
    whole, row = torch.empty(0), 0
    for piece in pieces:
        whole = whole if row else piece.new_empty((count, *piece.shape[1:]))
        whole[row : row + len(piece)] = piece
        row += len(piece)
    return whole


def mean_row(images: Rows, dtype: torch.dtype | None = None) -> Tensor:
    """The mean row, (*S), of a set (N, *S). Of 8-bit images the sums, in float64, are exact in any order."""
    if isinstance(images, Tensor):
        return images.mean(0, dtype=dtype)
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    for part in parts(images):
        total += part.sum(0, dtype=torch.float64)
    return (total / len(images)).to(dtype or images.dtype)


def deviation(images: Rows) -> float:
    """The standard deviation of all values of a set (N, *S), summed in float64: a scalar."""
    count, total, squares = images.numel(), 0.0, 0.0
    for part in parts(images):
        total += float(part.sum(dtype=torch.float64))
        squares += float(part.double().square().sum())
    return math.sqrt(max(0.0, squares - total**2 / count) / max(1, count - 1))


def span(images: Rows) -> tuple[float, float]:
    """The smallest and the largest value of a set (N, *S); NaN where there is one."""
    if isinstance(images, Tensor):
        low, high = images.detach().aminmax()
        return float(low), float(high)
    ends = [[float(end) for end in part.aminmax()] for part in parts(images)]
    low, high = torch.tensor(ends).T
    return float(low.min()), float(high.max())


def distinct_rows(images: Rows) -> tuple[Rows, Tensor]:
    """The distinct rows of a set (N, *S), in any order, and how often each occurs, (U,)."""
    if isinstance(images, Tensor):
        rows, times = images.unique(dim=0, return_counts=True)
        return rows, times
    first: dict[bytes, int] = {}
    keys = (hashlib.sha256(row.numpy().data).digest() for row in images.flatten(1))
    owner = torch.tensor([first.setdefault(key, number) for number, key in enumerate(keys)])
    places, times = owner.unique(return_counts=True)
    return images.rows(places), times


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(1)


def _cast(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return rows.to(dtype)


def _described(path: Path, name: str) -> File:
    """What the head of a safetensors file says of a tensor."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        told = json.loads(file.read(size))[name]
    first, last = (8 + size + end for end in told["data_offsets"])
    if path.stat().st_size < last:
        raise ValueError(f"{path} is truncated")
    return File(str(path), first, tuple(told["shape"]), _TYPES[told["dtype"]])


def _rows_of(part: File | NDArray, first: int, count: int) -> NDArray:
    """Rows of a part as it keeps them. They are read: a map of the file would count as memory of this process."""
    if not isinstance(part, File):
        return part[first : first + count]
    size = math.prod(part.shape[1:])
    place = part.first + first * size * numpy.dtype(part.dtype).itemsize
    try:
        values = numpy.fromfile(part.path, part.dtype, count * size, offset=place)
        return values.reshape(count, *part.shape[1:])
    except (OSError, ValueError) as error:
        raise Refused(f"{part.path} is gone, since its images changed, or damaged: load the set again") from error
